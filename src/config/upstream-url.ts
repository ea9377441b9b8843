/** `upstream.url`: the parts of a PostgreSQL connection URI (PostgreSQL manual 32.1.1.2) that are understood. */

export interface UpstreamAddress {
  /** Name, address, or the absolute path of a socket directory. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** Empty when the URL holds none. */
  readonly password: string;
  readonly database: string | undefined;
}

export type UpstreamUrlOutcome =
  | { readonly ok: true; readonly address: UpstreamAddress }
  | { readonly ok: false; readonly reason: string };

const understood = new Set(["host", "port"]);

/** Reasons never quote the URL, which may hold a password. */
export function parseUpstreamUrl(text: string): UpstreamUrlOutcome {
  if (!/^postgres(ql)?:\/\//.test(text)) {
    return { ok: false, reason: "must begin with postgres:// or postgresql://" };
  }
  let url: URL;
  let user: string;
  let password: string;
  let database: string;
  try {
    // An empty host, for a socket, is valid in PostgreSQL's URIs and not in WHATWG's.
    const withHost = text.replace(/^(postgres(?:ql)?:\/\/(?:[^@/?#]*@)?)(?=[/?#]|$)/, `$1${emptyHost}`);
    url = new URL(withHost);
    user = decodeURIComponent(url.username);
    password = decodeURIComponent(url.password);
    database = decodeURIComponent(url.pathname.slice(1));
  } catch {
    return { ok: false, reason: "is no valid URL; special characters in a password are written as %XX" };
  }
  for (const name of url.searchParams.keys()) {
    if (!understood.has(name)) {
      const hint = name.startsWith("ssl") ? ": set upstream.tls instead" : "";
      return {
        ok: false,
        reason: `has a parameter that is not supported here, ${JSON.stringify(name)}${hint}`,
      };
    }
  }
  const inUrl = url.hostname === emptyHost ? "" : url.hostname.replace(/^\[(.*)\]$/, "$1");
  const host = url.searchParams.get("host") ?? inUrl;
  const port = Number(url.searchParams.get("port") ?? (url.port === "" ? "5432" : url.port));
  if (host === "" || host.includes(",")) {
    return { ok: false, reason: "must name one host, or a socket directory as ?host=/path" };
  }
  if (!Number.isInteger(port) || port < 1 || port > 65535) {
    return { ok: false, reason: "has a port that is none" };
  }
  if (user === "") {
    return { ok: false, reason: "must name the administrative user, as in postgres://user@host/database" };
  }
  return {
    ok: true,
    address: { host, port, user, password, database: database === "" ? undefined : database },
  };
}

const emptyHost = "socket.invalid";

/** Whether traffic to this host leaves the machine's memory only in theory. */
export function isThisMachine(host: string): boolean {
  return host.startsWith("/") || host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
