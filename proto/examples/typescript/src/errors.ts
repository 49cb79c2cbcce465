// What a failed call says: google.rpc.ErrorInfo in the details of its status.

import { type ServiceError, status } from "@grpc/grpc-js";
import protobuf from "protobufjs";

const DETAILS = "grpc-status-details-bin";

// The part of google/rpc that gemd uses; numbers and names are Google's.
const { root } = protobuf.parse(
  `syntax = "proto3";
  package google.rpc;
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message RetryInfo { Duration retry_delay = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }`,
);

interface Facts {
  reason: string;
  code: string;
  message: string;
  why?: string;
  advice?: string[];
  metadata?: Record<string, string>;
  retryAfter?: number | undefined;
}

/** A call to gemd failed. Branch on `reason`; new reasons may appear. */
export class GemdError extends Error {
  /** Stable, such as `MODEL_NOT_FOUND`. */
  readonly reason: string;
  /** Name of the gRPC code, such as `NOT_FOUND`. */
  readonly code: string;
  /** Why, if more is known than the message says. */
  readonly why: string;
  /** What to type, best first. */
  readonly advice: readonly string[];
  /** Every number and name of the message, for programs. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Seconds after which the same call may succeed, if gemd said so. */
  readonly retryAfter: number | undefined;

  constructor(facts: Facts) {
    super(facts.message);
    this.name = "GemdError";
    this.reason = facts.reason;
    this.code = facts.code;
    this.why = facts.why ?? "";
    this.advice = facts.advice ?? [];
    this.metadata = facts.metadata ?? {};
    this.retryAfter = facts.retryAfter;
  }
}

/** The error that a failed call means; anything else as it is. */
export function meaningOf(error: unknown): unknown {
  if (!(error instanceof Error) || !("details" in error)) return error;
  const failed = error as ServiceError;
  const code = status[failed.code] ?? "UNKNOWN";
  const [details] = failed.metadata?.get(DETAILS) ?? [];
  const { info, retryAfter } = Buffer.isBuffer(details) ? read(details) : {};
  if (!info) return withoutReason(code, failed.details);
  const { why = "", try: advice = "", ...metadata } = info.metadata ?? {};
  return new GemdError({
    reason: info.reason,
    code,
    message: failed.details,
    why,
    advice: advice.split("\n").filter((line) => line !== ""),
    metadata,
    retryAfter,
  });
}

interface ErrorInfo {
  reason: string;
  domain: string;
  metadata?: Record<string, string>;
}

function read(details: Buffer): { info?: ErrorInfo; retryAfter?: number } {
  const found: { info?: ErrorInfo; retryAfter?: number } = {};
  const packed = decode<{ details?: { typeUrl: string; value: Uint8Array }[] }>("Status", details);
  for (const { typeUrl: type, value } of packed.details ?? []) {
    if (type.endsWith("/google.rpc.ErrorInfo")) {
      const info = decode<ErrorInfo>("ErrorInfo", value);
      if (info.domain === "gemd") found.info = info;
    } else if (type.endsWith("/google.rpc.RetryInfo")) {
      const { retryDelay: delay } = decode<{
        retryDelay?: { seconds?: number; nanos?: number };
      }>("RetryInfo", value);
      found.retryAfter = (delay?.seconds ?? 0) + (delay?.nanos ?? 0) / 1e9;
    }
  }
  return found;
}

function decode<T>(name: string, bytes: Uint8Array): T {
  const type = root.lookupType(`google.rpc.${name}`);
  return type.toObject(type.decode(bytes), { longs: Number }) as T;
}

/** What gRPC itself reports: no daemon, a lost connection, a deadline, a cancel. */
function withoutReason(code: string, details: string): GemdError {
  if (code === "UNAVAILABLE") {
    return new GemdError({
      reason: "DAEMON_UNREACHABLE",
      code,
      message: "gemd does not answer",
      why: details,
      advice: ["gemctl status", "gemd"],
    });
  }
  const message = code === "DEADLINE_EXCEEDED" ? "the deadline passed" : details;
  return new GemdError({ reason: code, code, message });
}
