// What can be shown of an answer that is still being drafted, checked or written.

import type { GenerateResponse__Output as Event } from "./generated/gemd/v1/GenerateResponse.js";

/** One candidate's answer as it comes: show `text`, and behind it `provisional` as such. */
export class Preview {
  /** The answer so far; it only grows. */
  text = "";
  #draft = "";
  #rest: string | undefined;

  /** What a draft has beyond the answer. It goes away, or becomes part of the answer. */
  get provisional(): string {
    return this.#rest ?? this.#draft;
  }

  /** Take one more event of the candidate into account. */
  add({ delta, draft, resolved }: Event): void {
    if (draft) {
      this.#draft += draft.text;
    } else if (resolved) {
      // Bytes, not characters: both ends count the same UTF-8.
      const kept = Buffer.from(this.#draft).subarray(0, Number(resolved.keptBytes)).toString();
      this.#rest = resolved.resolution === "RESOLUTION_KEPT" ? this.#draft : kept;
    } else if (delta) {
      this.text += delta.text;
      const rest = this.provisional;
      if (delta.text && rest) this.#rest = rest.startsWith(delta.text) ? rest.slice(delta.text.length) : "";
    }
  }
}
