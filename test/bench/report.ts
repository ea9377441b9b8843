/** The plain-text report: one table per section, medians over the rounds. */

import type { TargetName } from "./arguments.ts";
import {
  type CopySample,
  type Measurements,
  medianOf,
  medianRatio,
  type PgbenchSample,
} from "./measurements.ts";

/** Formats everything that was measured; sections that did not run are left out. */
export function formatReport(measurements: Measurements): string {
  const environment = Object.entries(measurements.environment).map(([label, text]) => [`${label}:`, text]);
  return [
    columns(environment, "left"),
    ...idleTable(measurements),
    ...copyTable("COPY out, fast reader", measurements.copy),
    ...slowReaderTable(measurements),
    ...pgbenchTable(measurements.pgbench),
    ...httpTables(measurements),
    ...copyTable("COPY out over TLS, fast reader", measurements.copyTls),
  ].join("\n");
}

function idleTable({ idle }: Measurements): string[] {
  if (idle.length === 0) return [];
  const perThousand = (bytes: number, sessions: number) => megabytes((bytes * 1000) / sessions);
  return section("Memory per 1,000 idle sessions (MB of resident memory above the base)", [
    ["proxy", "base", "logged in", "after a query", "closed again"],
    ...idle.map((each) => [
      each.target,
      megabytes(each.baseBytes),
      perThousand(each.loggedInBytes, each.sessions),
      perThousand(each.queriedBytes, each.sessions),
      perThousand(each.closedBytes, each.sessions),
    ]),
  ]);
}

function copyTable(title: string, samples: readonly CopySample[]): string[] {
  if (samples.length === 0) return [];
  const speed = (sample: CopySample) => sample.megabytesPerSecond;
  const cpu = (sample: CopySample) => sample.proxyCpuSecondsPerGb;
  return section(title, [
    ["target", "MB/s", "/direct", "/pgbouncer", "proxy CPU s/GB", "/pgbouncer"],
    ...targetsOf(samples).map((target) => [
      target,
      fixed(medianOf(samples, target, speed), 0),
      fixed(medianRatio(samples, target, "direct", speed), 2),
      fixed(medianRatio(samples, target, "pgbouncer", speed), 2),
      fixed(medianOf(samples, target, cpu), 3),
      fixed(medianRatio(samples, target, "pgbouncer", cpu), 2),
    ]),
  ]);
}

function slowReaderTable({ slowReader }: Measurements): string[] {
  if (slowReader.length === 0) return [];
  return section("COPY out, slow reader", [
    ["proxy", "peak rise of memory, MB", "seconds"],
    ...slowReader.map((each) => [each.target, megabytes(each.residentRiseBytes), fixed(each.seconds, 1)]),
  ]);
}

function pgbenchTable(samples: readonly PgbenchSample[]): string[] {
  if (samples.length === 0) return [];
  const tps = (sample: PgbenchSample) => sample.transactionsPerSecond;
  const cpu = (sample: PgbenchSample) => sample.proxyCpuUs;
  const rows = [...new Set(samples.map(workload))].map((name) => {
    const own = samples.filter((sample) => workload(sample) === name);
    return [
      name,
      fixed(medianOf(own, "direct", tps), 0),
      fixed(medianOf(own, "pgbouncer", tps), 0),
      fixed(medianOf(own, "nodedb", tps), 0),
      fixed(medianRatio(own, "nodedb", "direct", tps), 2),
      fixed(medianRatio(own, "nodedb", "pgbouncer", tps), 2),
      fixed(medianOf(own, "pgbouncer", cpu), 1),
      fixed(medianOf(own, "relay", cpu), 1),
      fixed(medianOf(own, "nodedb", cpu), 1),
      fixed(medianRatio(own, "nodedb", "pgbouncer", cpu), 2),
      fixed(medianRatio(own, "nodedb", "relay", cpu), 2),
    ];
  });
  return section("pgbench: transactions per second (tps), and CPU time of the proxy per transaction (µs)", [
    [
      ...["workload, clients", "direct", "pgbouncer", "nodedb", "n/d", "n/p"],
      ...["µs pgb.", "µs relay", "µs nodedb", "n/p", "n/r"],
    ],
    ...rows,
  ]);
}

function httpTables({ httpRequests, httpStream }: Measurements): string[] {
  if (httpRequests.length === 0) return [];
  const clientCounts = [...new Set(httpRequests.map(({ clients }) => clients))];
  const rows = clientCounts.map((clients) => {
    const own = httpRequests.filter((sample) => sample.clients === clients);
    return [
      `${clients} connections`,
      fixed(
        medianOf(own, "nodedb", (sample) => sample.requestsPerSecond),
        0,
      ),
      fixed(
        medianOf(own, "nodedb", (sample) => sample.cpuUs),
        0,
      ),
    ];
  });
  return [
    ...section("HTTP: POST /v1/query of one row", [["", "requests/s", "CPU µs"], ...rows]),
    ...section("HTTP: POST /v1/query/stream", [
      ["", "MB/s", "CPU s/GB"],
      [
        "nodedb",
        fixed(
          medianOf(httpStream, "nodedb", (sample) => sample.megabytesPerSecond),
          0,
        ),
        fixed(
          medianOf(httpStream, "nodedb", (sample) => sample.cpuSecondsPerGb),
          2,
        ),
      ],
    ]),
  ];
}

function workload(sample: PgbenchSample): string {
  const load = `select-only ${sample.mode}`;
  if (sample.section === "logins") return `login and a query, ${sample.clients}`;
  const what = sample.section === "churn" ? "churn (-C)" : sample.section === "tls" ? `${load}, TLS` : load;
  return `${what}, ${sample.clients}`;
}

/** In the order of the run. */
function targetsOf(samples: readonly { readonly target: TargetName }[]): TargetName[] {
  return [...new Set(samples.map((sample) => sample.target))];
}

function section(title: string, rows: readonly (readonly string[])[]): string[] {
  return ["", title, columns(rows, "right")];
}

/** The first column is a label and stands left; the others as asked. */
function columns(rows: readonly (readonly string[])[], alignment: "left" | "right"): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const cell = (text: string, column: number) => {
    const width = widths[column] ?? 0;
    return column === 0 || alignment === "left" ? text.padEnd(width) : text.padStart(width);
  };
  return rows.map((row) => row.map(cell).join("  ").trimEnd()).join("\n");
}

/** 1 MB is 10^6 bytes. */
function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function fixed(value: number | undefined, digits: number): string {
  return value === undefined ? "-" : value.toFixed(digits);
}
