/** An ErrorResponse of the upstream, kept as it came: it is shown to the client unchanged. */

import { encodeErrorResponse } from "../wire/backend-message.ts";
import { decodeErrorFields } from "../wire/backend-message-decoding.ts";

export class UpstreamError extends Error {
  override readonly name = "UpstreamError";
  /** Fields by their letter (PostgreSQL manual 54.8). */
  readonly fields: ReadonlyMap<string, string>;
  /** The whole message, type byte and length included. */
  readonly errorResponse: Buffer;

  /** @param body of the ErrorResponse; copied */
  constructor(body: Buffer) {
    const fields = decodeErrorFields(body);
    super(fields.get("M") ?? "unknown upstream error");
    this.fields = fields;
    this.errorResponse = Buffer.allocUnsafe(5 + body.length);
    this.errorResponse[0] = 0x45;
    this.errorResponse.writeInt32BE(body.length + 4, 1);
    body.copy(this.errorResponse, 5);
  }

  /** The same error at another place of the client's text, or at none. */
  withPosition(position: number | undefined): UpstreamError {
    const fields = new Map(this.fields);
    fields.delete("P");
    if (position !== undefined) fields.set("P", String(position));
    return new UpstreamError(encodeErrorResponse(fields).subarray(5));
  }

  get sqlstate(): string {
    return this.fields.get("C") ?? "XX000";
  }
}
