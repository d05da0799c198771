// Vercel's AI SDK with @ai-sdk/openai-compatible: node ai_sdk.mjs '{"base_url", "how", "prompt", "max_retries"}'.
// Prints one line of JSON: what the client got, and what it threw.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { described, report } from "./report.mjs";

const asked = JSON.parse(process.argv[2]);
const provider = createOpenAICompatible({
  name: "here",
  baseURL: asked.base_url,
  apiKey: "unused",
  includeUsage: asked.include_usage ?? false,
  supportsStructuredOutputs: true,
});
const given = {
  model: provider("test-model"),
  prompt: asked.prompt,
  maxRetries: asked.max_retries ?? 0,
  headers: asked.headers,
};
const weather = tool({
  description: "Says what the weather is",
  inputSchema: z.object({ city: z.string(), days: z.number() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
const clock = tool({ inputSchema: z.object({}), execute: async () => "12:00" });
const trip = z.object({ city: z.string(), days: z.number() });
const got = {};

// What a stream of parts says; an error in it is a part, not a throw.
async function collect(parts) {
  const told = { parts: [], text: "", reasoning: "", calls: [], results: [] };
  Object.assign(got, told);
  for await (const part of parts) {
    if (got.parts.at(-1) !== part.type) got.parts.push(part.type);
    if (part.type === "text-delta") got.text += part.text;
    if (part.type === "reasoning-delta") got.reasoning += part.text;
    if (part.type === "tool-call") got.calls.push({ name: part.toolName, input: part.input, id: part.toolCallId });
    if (part.type === "tool-result") got.results.push(part.output);
    if (part.type === "error") got.error = described(part.error);
    if (part.type === "finish") Object.assign(got, { finish: part.finishReason, usage: part.totalUsage });
  }
}

const ways = {
  async stream() {
    await collect(streamText({ ...given, onError() {} }).fullStream);
  },

  async whole() {
    const { text, reasoningText, finishReason, usage, response } = await generateText(given);
    Object.assign(got, { text, reasoning: reasoningText, finish: finishReason, usage, headers: response.headers });
  },

  async tools() {
    const steps = { tools: { weather, clock }, stopWhen: stepCountIs(1) };
    await collect(streamText({ ...given, ...steps, onError() {} }).fullStream);
  },

  async whole_tools() {
    const steps = { tools: { weather, clock }, stopWhen: stepCountIs(1) };
    const { toolCalls, toolResults, finishReason } = await generateText({ ...given, ...steps });
    got.calls = toolCalls.map((call) => ({ name: call.toolName, input: call.input, id: call.toolCallId }));
    got.results = toolResults.map((result) => result.output);
    got.finish = finishReason;
  },

  async object() {
    const { object, finishReason } = await generateObject({ ...given, schema: trip });
    Object.assign(got, { object, finish: finishReason });
  },

  async stream_object() {
    const { partialObjectStream, object } = streamObject({ ...given, schema: trip, onError() {} });
    got.partial = [];
    for await (const partial of partialObjectStream) got.partial.push(partial);
    got.object = await object;
  },

  async abort() {
    const leaving = new AbortController();
    const { textStream } = streamText({ ...given, abortSignal: leaving.signal, onError() {} });
    for await (const text of textStream) {
      if (text) leaving.abort();
    }
    got.aborted = leaving.signal.aborted;
  },
};

await report(got, ways[asked.how]);
