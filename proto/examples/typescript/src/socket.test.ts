import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { defaultSocket } from "./socket.js";

// Nobody has this number, and so nobody has its directory in /run/user.
const linux = { platform: "linux", home: "/home/mia", uid: 4_000_000_000 };
const mac = { ...linux, platform: "darwin", home: "/Users/mia" };

test("the variable that names it comes first", () => {
  const environment = { GEMD_SOCKET: "~/s", XDG_RUNTIME_DIR: "/run/user/7" };
  assert.equal(defaultSocket(environment, linux), "/home/mia/s");
  assert.throws(() => defaultSocket({ GEMD_SOCKET: "s" }, linux), /absolute/);
});

test("otherwise it is in the runtime directory", () => {
  const session = { GEMD_SOCKET: "", XDG_RUNTIME_DIR: "/run/user/7" };
  assert.equal(defaultSocket(session, linux), "/run/user/7/gemd/gemd.sock");
  const service = { ...session, RUNTIME_DIRECTORY: "/run/gemd:/run/other" };
  assert.equal(defaultSocket(service, linux), "/run/gemd/gemd.sock");
});

test("without one it is in the user's own directories", () => {
  assert.equal(
    defaultSocket({ XDG_RUNTIME_DIR: "relative" }, linux),
    "/home/mia/.local/state/gemd/run/gemd.sock",
  );
  assert.equal(defaultSocket({ XDG_STATE_HOME: "/s" }, linux), "/s/gemd/run/gemd.sock");
  assert.equal(
    defaultSocket({}, mac),
    "/Users/mia/Library/Application Support/gemd/run/gemd.sock",
  );
});

test("the configuration file may name it", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "gemd-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const environment = { GEMD_CONFIG: join(folder, "config.toml"), XDG_RUNTIME_DIR: "/run/user/7" };
  const read = (content: string) => {
    writeFileSync(environment.GEMD_CONFIG, content);
    return defaultSocket(environment, linux);
  };
  assert.equal(read('log_level = "info"\nsocket = "/a \\"b" # mine\n'), '/a "b');
  assert.equal(read("socket='~/c'"), "/home/mia/c");
  assert.equal(read('[schedules]\nsocket = "never a on battery"'), "/run/user/7/gemd/gemd.sock");
});
