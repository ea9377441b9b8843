/** Refusals that are about the request and not about SQL: their code is NH and the HTTP status. */

export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  readonly hint: string | undefined;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    message: string,
    more: { readonly hint?: string; readonly headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message);
    this.status = status;
    this.hint = more.hint;
    this.headers = more.headers ?? {};
  }

  get code(): string {
    return `NH${this.status}`;
  }
}
