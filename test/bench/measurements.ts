/** What one run of the benchmark has measured, and the medians over its rounds. */

import type { QueryMode, Section, TargetName } from "./arguments.ts";
import type { CopyThroughput, SlowReader } from "./copy-out.ts";
import type { HttpRequests, HttpStream } from "./http-load.ts";
import type { IdleMemory } from "./idle-memory.ts";
import type { PgbenchResult } from "./pgbench.ts";

/** One pgbench run of one round. */
export interface PgbenchSample extends PgbenchResult {
  readonly section: Section & ("pgbench" | "churn" | "logins" | "tls");
  readonly mode: QueryMode;
  readonly clients: number;
  readonly round: number;
  readonly target: TargetName;
}

export interface CopySample extends CopyThroughput {
  readonly round: number;
  readonly target: TargetName;
}

export interface HttpRequestsSample extends HttpRequests {
  readonly clients: number;
  readonly round: number;
  readonly target: TargetName;
}

export interface HttpStreamSample extends HttpStream {
  readonly round: number;
  readonly target: TargetName;
}

/** Every single measurement, in the order of the run; what `--json` writes. */
export interface Measurements {
  /** Versions, machine and options, as label and text. */
  readonly environment: Record<string, string>;
  readonly idle: (IdleMemory & { readonly target: TargetName })[];
  readonly copy: CopySample[];
  /** The same from clients that use TLS. */
  readonly copyTls: CopySample[];
  readonly slowReader: (SlowReader & { readonly target: TargetName })[];
  readonly pgbench: PgbenchSample[];
  readonly httpRequests: HttpRequestsSample[];
  readonly httpStream: HttpStreamSample[];
}

interface Sample {
  readonly round: number;
  readonly target: TargetName;
}

/** Median over the rounds of one target; undefined without a measurement. */
export function medianOf<S extends Sample>(
  samples: readonly S[],
  target: TargetName,
  value: (sample: S) => number | undefined,
): number | undefined {
  return median(samples.filter((sample) => sample.target === target).map(value));
}

/**
 * Median over the rounds of one target's value divided by another's in the same round.
 * Paired, because neighbours in time share the machine's mood; the ratio of two medians does not.
 */
export function medianRatio<S extends Sample>(
  samples: readonly S[],
  target: TargetName,
  reference: TargetName,
  value: (sample: S) => number | undefined,
): number | undefined {
  const ratios = samples
    .filter((sample) => sample.target === target)
    .map((sample) => {
      const other = samples.find((each) => each.target === reference && each.round === sample.round);
      const numerator = value(sample);
      const denominator = other === undefined ? undefined : value(other);
      return numerator === undefined || denominator === undefined ? undefined : numerator / denominator;
    });
  return median(ratios);
}

function median(values: readonly (number | undefined)[]): number | undefined {
  const sorted = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)];
  const lower = sorted[Math.ceil(middle) - 1];
  return upper === undefined || lower === undefined ? undefined : (upper + lower) / 2;
}
