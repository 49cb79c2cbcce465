import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateResponse__Output as Event } from "./generated/gemd/v1/GenerateResponse.js";
import { Preview } from "./preview.js";

const draft = (text: string) => ({ draft: { text } }) as Event;
const delta = (text: string) => ({ delta: { text } }) as Event;
const resolved = (how: string, keptBytes: string) =>
  ({ resolved: { resolution: `RESOLUTION_${how}`, keptBytes } }) as Event;

function shown(...events: Event[]): string[] {
  const preview = new Preview();
  return events.map((event) => {
    preview.add(event);
    return `${preview.text}[${preview.provisional}]`;
  });
}

test("a draft that is kept becomes the answer piece by piece", () => {
  assert.deepEqual(
    shown(draft("It is "), draft("Oslo."), resolved("KEPT", "11"), delta("It is"), delta(" Oslo.")),
    ["[It is ]", "[It is Oslo.]", "[It is Oslo.]", "It is[ Oslo.]", "It is Oslo.[]"],
  );
});

test("a draft that is replaced goes away at once", () => {
  assert.deepEqual(shown(draft("Bonn."), resolved("REPLACED", "0"), delta("Berlin.")), [
    "[Bonn.]",
    "[]",
    "Berlin.[]",
  ]);
});

test("the beginning of a draft that is continued is counted in bytes", () => {
  assert.deepEqual(shown(draft("Köln ist"), resolved("CONTINUED", "5"), delta("Köln"), delta("!")), [
    "[Köln ist]",
    "[Köln]",
    "Köln[]",
    "Köln![]",
  ]);
});
