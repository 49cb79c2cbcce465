// gemd-example [--model MODEL] [--max-tokens N] [--deadline SECONDS] [--socket PATH] PROMPT
//
// The answer, and nothing else, goes to standard output as it comes.

import { parseArgs } from "node:util";
import { defaultSocket, type Event, Gemd, GemdError, type GenerateRequest, Preview } from "./gemd.js";

const USAGE_ERROR = 2;
const TIMED_OUT = 124;
const INTERRUPTED = 130;

interface Wanted {
  prompt: string;
  model: string | undefined;
  socket: string | undefined;
  maxTokens: number | undefined;
  deadline: number | undefined;
}

/**
 * What the command line says.
 *
 * @throws Error if it is not understood.
 */
function wanted(): Wanted {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      model: { type: "string" },
      "max-tokens": { type: "string" },
      deadline: { type: "string" },
      socket: { type: "string" },
    },
  });
  const [prompt] = positionals;
  if (positionals.length !== 1 || !prompt) throw new Error("there has to be one PROMPT");
  const { model, socket } = values;
  const maxTokens = numberOf("--max-tokens", values["max-tokens"]);
  return { prompt, model, socket, maxTokens, deadline: numberOf("--deadline", values.deadline) };
}

function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const number = text.trim() === "" ? Number.NaN : Number(text);
  if (!Number.isFinite(number) || number < 0) throw new Error(`${option} is no number: ${text}`);
  return number;
}

/** A line on standard error; on a terminal it is replaced by the next one. */
class StatusLine {
  readonly #live = process.stderr.isTTY;
  #last = "";

  show(text: string): void {
    if (text === this.#last) return;
    this.#last = text;
    const flat = text.replace(/[\p{Cc}\s]+/gu, " ");
    if (!this.#live) process.stderr.write(`${flat}\n`);
    else process.stderr.write(`\r\x1b[K\x1b[2m${tail(flat, process.stderr.columns - 1)}\x1b[0m`);
  }

  clear(): void {
    if (this.#live && this.#last) process.stderr.write("\r\x1b[K");
    this.#last = "";
  }
}

function tail(text: string, columns: number): string {
  const characters = [...text];
  return characters.length > columns ? `…${characters.slice(1 - columns).join("")}` : text;
}

/** What goes on before there is text; nothing for the other events. */
function happening({ queued, loading }: Event): string | undefined {
  if (queued) return `waiting for ${queued.model}, place ${queued.position}`;
  if (!loading) return undefined;
  const total = Number(loading.total);
  const share = total ? ` ${Math.floor((100 * Number(loading.current)) / total)} %` : "";
  return `loading ${loading.model}: ${loading.phase.replace("PHASE_", "").toLowerCase()}${share}`;
}

async function answer(gemd: Gemd, want: Wanted, signal: AbortSignal): Promise<void> {
  const { prompt, deadline } = want;
  const request: GenerateRequest = {};
  if (want.model) request.model = want.model;
  if (want.maxTokens !== undefined) request.sampling = { maxTokens: want.maxTokens };

  const line = new StatusLine();
  const preview = new Preview();
  try {
    for await (const event of gemd.chat(prompt, request, { deadline, signal })) {
      preview.add(event);
      const status = happening(event);
      if (status) line.show(status);
      // A draft may still be replaced: it is shown as one, and never written as the answer.
      if (event.draft) line.show(`draft: ${preview.provisional}`);
      if (event.resolved) {
        line.clear();
        if (event.resolved.resolution !== "RESOLUTION_KEPT") line.show(event.resolved.explanation);
      }
      if (event.delta?.text) {
        line.clear();
        process.stdout.write(event.delta.text);
      }
    }
  } finally {
    line.clear();
    if (preview.text && !preview.text.endsWith("\n")) process.stdout.write("\n");
  }
}

function report(error: unknown, interrupted: boolean): number {
  if (interrupted) return INTERRUPTED;
  if (!(error instanceof GemdError)) throw error;
  process.stderr.write(`error: ${error.message} (${error.reason})\n`);
  if (error.why) process.stderr.write(`  why: ${error.why}\n`);
  for (const each of error.advice) process.stderr.write(`  try: ${each}\n`);
  if (error.retryAfter) process.stderr.write(`  try: again in ${error.retryAfter} s\n`);
  return error.code === "DEADLINE_EXCEEDED" ? TIMED_OUT : 1;
}

async function main(): Promise<number> {
  let want: Wanted;
  try {
    want = wanted();
  } catch (error) {
    process.stderr.write(`error: ${(error as Error).message}\n`);
    process.stderr.write("usage: npm start -- [--model M] [--max-tokens N] [--deadline SECONDS] [--socket PATH] PROMPT\n");
    return USAGE_ERROR;
  }
  const interrupt = new AbortController();
  // The first Ctrl-C cancels the answer, and the program ends in good order; the next one kills it.
  process.once("SIGINT", () => interrupt.abort());
  let gemd: Gemd | undefined;
  try {
    gemd = new Gemd(want.socket ?? defaultSocket());
    await answer(gemd, want, interrupt.signal);
    return 0;
  } catch (error) {
    return report(error, interrupt.signal.aborted);
  } finally {
    gemd?.close();
  }
}

process.exitCode = await main();
