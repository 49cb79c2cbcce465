// A client of gemd: the part of proto/gemd/v1 that most apps need, typed.

import { fileURLToPath } from "node:url";
import { type CallOptions, credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { meaningOf } from "./errors.js";
import type { EmbedRequest } from "./generated/gemd/v1/EmbedRequest.js";
import type { EmbedResponse__Output } from "./generated/gemd/v1/EmbedResponse.js";
import type { GenerateRequest } from "./generated/gemd/v1/GenerateRequest.js";
import type { GenerateResponse__Output as Event } from "./generated/gemd/v1/GenerateResponse.js";
import type { GenerationServiceClient } from "./generated/gemd/v1/GenerationService.js";
import type { ProtoGrpcType } from "./generated/generation_service.js";
import { defaultSocket } from "./socket.js";

export { GemdError } from "./errors.js";
export { Preview } from "./preview.js";
export { defaultSocket, type Event, type GenerateRequest };

/** The folder with `gemd/v1`; an app of its own ships a copy of it. */
const PROTOS = fileURLToPath(new URL("../../../", import.meta.url));
const LARGEST_MESSAGE = 32 * 1024 * 1024;
const UNARY_SECONDS = 60;

export interface Limits {
  /** Seconds that the call may take, waiting and loading included; gemd keeps to it too. */
  deadline?: number | undefined;
  /** Cancels the call. */
  signal?: AbortSignal | undefined;
}

/** A connection to the daemon. It is made with the first call, and made again when it was lost. */
export class Gemd {
  readonly #generation: GenerationServiceClient;

  constructor(socket: string = defaultSocket()) {
    // The same options as in `npm run types`: they say what the values are that the types promise.
    const definition = loadSync("gemd/v1/generation_service.proto", {
      includeDirs: [PROTOS],
      longs: String,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const { gemd } = loadPackageDefinition(definition) as unknown as ProtoGrpcType;
    this.#generation = new gemd.v1.GenerationService(`unix:${socket}`, credentials.createInsecure(), {
      "grpc.default_authority": "localhost",
      "grpc.enable_http_proxy": 0,
      "grpc.max_receive_message_length": LARGEST_MESSAGE,
      "grpc.max_send_message_length": LARGEST_MESSAGE,
      "grpc.initial_reconnect_backoff_ms": 50,
    });
  }

  /**
   * Answers a prompt. Leaving the loop early cancels the answer.
   *
   * @throws GemdError; what was streamed before it is valid.
   */
  async *generate(request: GenerateRequest, limits: Limits = {}): AsyncGenerator<Event> {
    const call = this.#generation.generate(request, options(limits.deadline));
    const cancel = () => call.cancel();
    limits.signal?.addEventListener("abort", cancel, { once: true });
    if (limits.signal?.aborted) cancel();
    try {
      for await (const event of call) yield event as Event;
    } catch (error) {
      throw meaningOf(error);
    } finally {
      limits.signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  /** Answers one message of the user; the other fields of the request as they are needed. */
  chat(prompt: string, more: GenerateRequest = {}, limits: Limits = {}): AsyncGenerator<Event> {
    const chat = { messages: [{ role: "ROLE_USER" as const, parts: [{ text: prompt }] }] };
    return this.generate({ client: "gemd-example", ...more, chat }, limits);
  }

  /** One vector for each text. */
  embed(request: EmbedRequest, limits: Limits = {}): Promise<EmbedResponse__Output> {
    return new Promise((resolve, reject) => {
      const call = this.#generation.embed(
        request,
        new Metadata(),
        options(limits.deadline ?? UNARY_SECONDS),
        (error, response) => {
          limits.signal?.removeEventListener("abort", cancel);
          if (error) reject(meaningOf(error));
          else resolve(response as EmbedResponse__Output);
        },
      );
      const cancel = () => call.cancel();
      limits.signal?.addEventListener("abort", cancel, { once: true });
      if (limits.signal?.aborted) cancel();
    });
  }

  close(): void {
    this.#generation.close();
  }
}

function options(deadline: number | undefined): CallOptions {
  return deadline === undefined ? {} : { deadline: Date.now() + deadline * 1000 };
}
