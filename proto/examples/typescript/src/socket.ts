// Where this user's daemon listens: the rule of gemd itself (gemd/paths.py).

import { lstatSync, readFileSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { GemdError } from "./errors.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** What the rule asks of the machine; handed in by tests. */
export interface Machine {
  platform: string;
  home: string;
  uid: number;
}

/**
 * The path of the socket. In this order: `GEMD_SOCKET`; `socket` in the configuration file;
 * `gemd.sock` in the runtime directory of a service, of the session, of logind, or of gemd itself.
 *
 * @throws GemdError if a setting names no absolute path.
 */
export function defaultSocket(
  environment: Environment = process.env,
  machine: Partial<Machine> = {},
): string {
  const platform = machine.platform ?? process.platform;
  const home = machine.home ?? (environment.HOME || homedir());
  const named = environment.GEMD_SOCKET || fromFile(configFile(environment, platform, home));
  if (named) return absolute(named, home);
  const uid = machine.uid ?? userInfo().uid;
  return join(runtimeDirectory(environment, platform, home, uid), "gemd.sock");
}

function absolute(path: string, home: string): string {
  const whole = path === "~" || path.startsWith("~/") ? home + path.slice(1) : path;
  if (!isAbsolute(whole)) {
    throw new GemdError({
      reason: "BAD_CONFIG",
      code: "FAILED_PRECONDITION",
      message: `the socket ${path} has to be an absolute path, or one that starts with ~/`,
    });
  }
  return whole;
}

function runtimeDirectory(
  environment: Environment,
  platform: string,
  home: string,
  uid: number,
): string {
  // systemd lists several directories with colons when a unit asks for several.
  const service = (environment.RUNTIME_DIRECTORY ?? "").split(":")[0] ?? "";
  if (isAbsolute(service)) return service;
  const session = environment.XDG_RUNTIME_DIR ?? "";
  if (isAbsolute(session)) return join(session, "gemd");
  if (platform === "darwin") return join(supportDirectory(home), "run");
  const logind = `/run/user/${uid}`;
  if (isOwnDirectory(logind, uid)) return join(logind, "gemd");
  return join(xdg(environment.XDG_STATE_HOME, home, ".local/state"), "run");
}

function configFile(environment: Environment, platform: string, home: string): string {
  if (environment.GEMD_CONFIG) return environment.GEMD_CONFIG;
  const directory =
    platform === "darwin" ? supportDirectory(home) : xdg(environment.XDG_CONFIG_HOME, home, ".config");
  return join(directory, "config.toml");
}

/** `socket` of a configuration file; it stands before the first table, on a line of its own. */
function fromFile(file: string): string | undefined {
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
  for (const line of content.split("\n")) {
    if (/^\s*\[/.test(line)) return undefined;
    const found = /^\s*socket\s*=\s*(?:("(?:[^"\\]|\\.)*")|'([^']*)')\s*(?:#.*)?$/.exec(line);
    // What a path needs of TOML's quotes is what JSON has.
    if (found) return found[1] !== undefined ? (JSON.parse(found[1]) as string) : found[2];
  }
  return undefined;
}

function xdg(variable: string | undefined, home: string, otherwise: string): string {
  // A relative path is to be ignored, says the specification.
  return join(variable && isAbsolute(variable) ? variable : join(home, otherwise), "gemd");
}

function supportDirectory(home: string): string {
  return join(home, "Library", "Application Support", "gemd");
}

function isOwnDirectory(path: string, uid: number): boolean {
  try {
    const found = lstatSync(path);
    return found.isDirectory() && found.uid === uid;
  } catch {
    return false;
  }
}
