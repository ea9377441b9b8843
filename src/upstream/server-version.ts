/** Which versions of PostgreSQL may stand behind the front-end, and which should be newer. */

export const oldestMajorVersion = 15;

/**
 * First minor release of each major version with the fix of CVE-2025-8713 (August 2025): the optimizer's statistics
 * could show rows that row-level security hides. Versions that are not listed are newer than the problem.
 */
const oldestSoundMinor: ReadonlyMap<number, number> = new Map([
  [15, 14],
  [16, 10],
  [17, 6],
]);

export type VersionJudgement =
  | { readonly kind: "sound" }
  | { readonly kind: "unsupported"; readonly name: string }
  /** Works, but `reason` says why not for long. */
  | {
      readonly kind: "unsound";
      readonly version: string;
      readonly atLeast: string;
      readonly reason: string;
    };

/** @param version as in the setting server_version_num, for example 150013 */
export function judgeServerVersion(version: number): VersionJudgement {
  const major = Math.floor(version / 10_000);
  const minor = version % 10_000;
  if (major < oldestMajorVersion) return { kind: "unsupported", name: `PostgreSQL ${major}` };
  const sound = oldestSoundMinor.get(major);
  if (sound === undefined || minor >= sound) return { kind: "sound" };
  return {
    kind: "unsound",
    version: `${major}.${minor}`,
    atLeast: `${major}.${sound}`,
    reason:
      "this PostgreSQL lacks the fix of CVE-2025-8713, without which statistics can show rows that row-level security hides; upgrade it",
  };
}
