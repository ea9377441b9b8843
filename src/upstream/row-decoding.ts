/** Descriptions and rows of a result whose values are text (PostgreSQL manual 54.7). */

import { MessageReader } from "../wire/message-reader.ts";
import type { Cell, DescribedColumn } from "./query-result.ts";

/** RowDescription: what is needed to read text values. */
export function decodeColumns(body: Buffer): DescribedColumn[] {
  const reader = new MessageReader(body);
  return reader.list(19, () => {
    const name = reader.cstring().toString("utf8");
    // The table's oid and the column's number.
    reader.bytes(6);
    const typeOid = reader.uint32();
    // Size, modifier and format.
    reader.bytes(8);
    return { name, typeOid };
  });
}

export function decodeParameterTypes(body: Buffer): number[] {
  const reader = new MessageReader(body);
  return reader.list(4, () => reader.uint32());
}

/** DataRow: every value was asked for as text. */
export function decodeCells(body: Buffer): Cell[] {
  const count = body.readInt16BE(0);
  const cells: Cell[] = [];
  let position = 2;
  for (let index = 0; index < count; index += 1) {
    const length = body.readInt32BE(position);
    position += 4;
    if (length === -1) cells.push(null);
    else {
      cells.push(body.toString("utf8", position, position + length));
      position += length;
    }
  }
  return cells;
}
