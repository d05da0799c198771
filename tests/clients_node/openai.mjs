// The official `openai` package: node openai.mjs '{"base_url", "how", "body", "options", "max_retries"}'.
// Prints one line of JSON: what the client got, and what it threw.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { report } from "./report.mjs";

const asked = JSON.parse(process.argv[2]);
const client = new OpenAI({
  baseURL: asked.base_url,
  apiKey: "unused",
  maxRetries: asked.max_retries ?? 0,
});
const completions = client.chat.completions;
const body = { model: "test-model", ...asked.body };
const got = {};

const ways = {
  async whole() {
    const { data, response } = await completions.create(body, asked.options).withResponse();
    got.completion = data;
    got.headers = Object.fromEntries(response.headers);
  },

  async stream() {
    const call = completions.create({ ...body, stream: true }, asked.options);
    const { data, response } = await call.withResponse();
    got.headers = Object.fromEntries(response.headers);
    got.chunks = [];
    for await (const chunk of data) got.chunks.push(chunk);
  },

  // The helper that adds chunks up.
  async helper() {
    const runner = completions.stream(body, asked.options);
    got.deltas = [];
    runner.on("content", (delta) => got.deltas.push(delta));
    got.completion = await runner.finalChatCompletion();
  },

  async parse() {
    const schema = z.object({ city: z.string(), days: z.number() });
    const format = zodResponseFormat(schema, "trip");
    got.completion = await completions.parse({ ...body, response_format: format }, asked.options);
  },

  // Leave after the first chunk with text, or after so many milliseconds.
  async abort() {
    const stream = await completions.create({ ...body, stream: true }, asked.options);
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) {
        stream.controller.abort();
        got.aborted = true;
      }
    }
  },

  async abort_whole() {
    const signal = AbortSignal.timeout(asked.milliseconds);
    await completions.create(body, { ...asked.options, signal });
  },
};

await report(got, ways[asked.how]);
