// Run one way of using a client, and print what came of it as one line of JSON.
export async function report(got, use) {
  try {
    await use();
  } catch (error) {
    got.thrown = described(error);
  }
  process.stdout.write(`${JSON.stringify(got)}\n`);
}

export function described(error) {
  return {
    names: classNames(error),
    name: error?.name,
    message: error?.message ?? String(error),
    status: error?.status ?? error?.statusCode,
    code: error?.code,
    type: error?.type,
    retryable: error?.isRetryable,
    request_id: error?.requestID,
    value: error instanceof Error ? undefined : error,
  };
}

function classNames(error) {
  const names = [];
  for (let kind = error?.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) names.push(kind.name);
  return names;
}
