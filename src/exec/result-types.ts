/** What the types of result columns are called, and how their text reads as JSON (PostgreSQL manual, pg_type). */

/** How a value of a type stands in JSON; everything that JSON's numbers could round is a string. */
export type JsonForm = "boolean" | "number" | "float" | "json" | "text";

export type ValueType =
  | { readonly kind: JsonForm; readonly name: string }
  | {
      readonly kind: "array";
      readonly name: string;
      readonly element: ValueType;
      readonly delimiter: string;
    };

/** Forms of those that are not text. Integers of four bytes at most are exact as JSON numbers. */
const forms: Readonly<Record<string, JsonForm>> = {
  bool: "boolean",
  int2: "number",
  int4: "number",
  oid: "number",
  float4: "float",
  float8: "float",
  json: "json",
  jsonb: "json",
};

/** PostgreSQL's own types: oid, name, oid of the array type (0: none). The delimiter is a comma except for box. */
const builtIn: readonly (readonly [oid: number, name: string, arrayOid: number])[] = [
  [16, "bool", 1000],
  [17, "bytea", 1001],
  [18, "char", 1002],
  [19, "name", 1003],
  [20, "int8", 1016],
  [21, "int2", 1005],
  [22, "int2vector", 1006],
  [23, "int4", 1007],
  [24, "regproc", 1008],
  [25, "text", 1009],
  [26, "oid", 1028],
  [27, "tid", 1010],
  [28, "xid", 1011],
  [29, "cid", 1012],
  [30, "oidvector", 1013],
  [114, "json", 199],
  [142, "xml", 143],
  [600, "point", 1017],
  [601, "lseg", 1018],
  [602, "path", 1019],
  [603, "box", 1020],
  [604, "polygon", 1027],
  [628, "line", 629],
  [650, "cidr", 651],
  [700, "float4", 1021],
  [701, "float8", 1022],
  [705, "unknown", 0],
  [718, "circle", 719],
  [774, "macaddr8", 775],
  [790, "money", 791],
  [829, "macaddr", 1040],
  [869, "inet", 1041],
  [1042, "bpchar", 1014],
  [1043, "varchar", 1015],
  [1082, "date", 1182],
  [1083, "time", 1183],
  [1114, "timestamp", 1115],
  [1184, "timestamptz", 1185],
  [1186, "interval", 1187],
  [1266, "timetz", 1270],
  [1560, "bit", 1561],
  [1562, "varbit", 1563],
  [1700, "numeric", 1231],
  [1790, "refcursor", 2201],
  [2205, "regclass", 2210],
  [2206, "regtype", 2211],
  [2249, "record", 2287],
  [2278, "void", 0],
  [2950, "uuid", 2951],
  [3220, "pg_lsn", 3221],
  [3614, "tsvector", 3643],
  [3615, "tsquery", 3645],
  [3802, "jsonb", 3807],
  [3904, "int4range", 3905],
  [3906, "numrange", 3907],
  [3908, "tsrange", 3909],
  [3910, "tstzrange", 3911],
  [3912, "daterange", 3913],
  [3926, "int8range", 3927],
  [4072, "jsonpath", 4073],
];

const byOid: ReadonlyMap<number, ValueType> = new Map(
  builtIn.flatMap(([oid, name, arrayOid]): [number, ValueType][] => {
    const type: ValueType = { kind: forms[name] ?? "text", name };
    if (arrayOid === 0) return [[oid, type]];
    return [
      [oid, type],
      [arrayOid, arrayOf(type, name === "box" ? ";" : ",")],
    ];
  }),
);

export function builtInType(oid: number): ValueType | undefined {
  return byOid.get(oid);
}

/** The type of an array of these. @param delimiter between elements */
export function arrayOf(element: ValueType, delimiter: string): ValueType {
  return { kind: "array", name: `${element.name}[]`, element, delimiter };
}

/** A type that is not known any more, or never was: its text. */
export function unknownType(oid: number): ValueType {
  return { kind: "text", name: `oid ${oid}` };
}
