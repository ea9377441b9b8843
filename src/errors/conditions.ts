/** The conditions that this program raises, with their SQLSTATE (PostgreSQL manual, appendix A). */

const table = {
  connection_failure: "08006",
  transaction_resolution_unknown: "08007",
  protocol_violation: "08P01",
  feature_not_supported: "0A000",
  numeric_value_out_of_range: "22003",
  character_not_in_repertoire: "22021",
  invalid_datetime_format: "22007",
  invalid_parameter_value: "22023",
  active_sql_transaction: "25001",
  read_only_sql_transaction: "25006",
  in_failed_sql_transaction: "25P02",
  invalid_authorization_specification: "28000",
  invalid_password: "28P01",
  dependent_objects_still_exist: "2BP01",
  invalid_transaction_termination: "2D000",
  invalid_catalog_name: "3D000",
  invalid_cursor_name: "34000",
  serialization_failure: "40001",
  insufficient_privilege: "42501",
  syntax_error: "42601",
  duplicate_column: "42701",
  undefined_column: "42703",
  undefined_object: "42704",
  duplicate_object: "42710",
  undefined_table: "42P01",
  invalid_table_definition: "42P16",
  wrong_object_type: "42809",
  reserved_name: "42939",
  too_many_connections: "53300",
  program_limit_exceeded: "54000",
  statement_too_complex: "54001",
  object_not_in_prerequisite_state: "55000",
  query_canceled: "57014",
  admin_shutdown: "57P01",
  crash_shutdown: "57P02",
  cannot_connect_now: "57P03",
  idle_session_timeout: "57P05",
  data_corrupted: "XX001",
  internal_error: "XX000",
} as const satisfies Record<string, string>;

/** A condition name as PostgreSQL spells it, for example `invalid_password`. */
export type Condition = keyof typeof table;

export const conditions: Readonly<Record<Condition, string>> = table;
