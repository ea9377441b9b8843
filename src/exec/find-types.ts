/** Types of a result that are not PostgreSQL's own: enums, domains, composites, extensions', and arrays of them. */

import type { Cell } from "../upstream/query-result.ts";
import { arrayOf, builtInType, unknownType, type ValueType } from "./result-types.ts";

interface TypeRow {
  readonly name: string;
  /** Of a true array: its elements' type. */
  readonly elementOid: number | undefined;
  /** Of a domain: what it is over. */
  readonly baseOid: number | undefined;
  readonly delimiter: string;
}

/**
 * The types of these oids, as the connection's database has them.
 *
 * @param query runs SQL on the client's own connection; asked only when a type is not PostgreSQL's own
 */
export async function findTypes(
  oids: readonly number[],
  query: (sql: string) => Promise<readonly (readonly Cell[])[]>,
): Promise<readonly ValueType[]> {
  const found = new Map<number, TypeRow>();
  let wanted = oids.filter((oid) => builtInType(oid) === undefined);
  while (wanted.length > 0) {
    const rows = await query(typesQuery(wanted));
    const next: number[] = [];
    for (const [oid, name, elementOid, baseOid, delimiter] of rows) {
      const row: TypeRow = {
        name: name ?? "",
        elementOid: elementOid === "0" ? undefined : Number(elementOid),
        baseOid: baseOid === "0" ? undefined : Number(baseOid),
        delimiter: delimiter ?? ",",
      };
      found.set(Number(oid), row);
      for (const further of [row.elementOid, row.baseOid]) {
        if (further !== undefined && builtInType(further) === undefined && !found.has(further))
          next.push(further);
      }
    }
    wanted = next;
  }
  return oids.map((oid) => typeOf(oid, found));
}

function typeOf(oid: number, found: ReadonlyMap<number, TypeRow>): ValueType {
  const known = builtInType(oid);
  if (known !== undefined) return known;
  const row = found.get(oid);
  if (row === undefined) return unknownType(oid);
  if (row.elementOid !== undefined) return arrayOf(typeOf(row.elementOid, found), row.delimiter);
  if (row.baseOid === undefined) return { kind: "text", name: row.name };
  return { ...typeOf(row.baseOid, found), name: row.name };
}

// An array's delimiter is its element's. Every name is qualified: the connection's search_path is the client's.
function typesQuery(oids: readonly number[]): string {
  return `SELECT t.oid, t.typname,
       CASE WHEN t.typcategory OPERATOR(pg_catalog.=) 'A' AND t.typlen OPERATOR(pg_catalog.=) (-1) THEN t.typelem ELSE 0 END,
       t.typbasetype, t.typdelim
  FROM pg_catalog.pg_type t
 WHERE t.oid OPERATOR(pg_catalog.=) ANY ('{${oids.join(",")}}'::pg_catalog.oid[])`;
}
