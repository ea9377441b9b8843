/** The conditions that this program raises, with their SQLSTATE (PostgreSQL manual, appendix A) and HTTP status. */

interface ConditionCodes {
  readonly sqlstate: string;
  readonly httpStatus: number;
}

const table = {
  connection_failure: { sqlstate: "08006", httpStatus: 503 },
  protocol_violation: { sqlstate: "08P01", httpStatus: 400 },
  feature_not_supported: { sqlstate: "0A000", httpStatus: 501 },
  character_not_in_repertoire: { sqlstate: "22021", httpStatus: 400 },
  invalid_datetime_format: { sqlstate: "22007", httpStatus: 400 },
  invalid_parameter_value: { sqlstate: "22023", httpStatus: 400 },
  active_sql_transaction: { sqlstate: "25001", httpStatus: 409 },
  in_failed_sql_transaction: { sqlstate: "25P02", httpStatus: 409 },
  invalid_authorization_specification: { sqlstate: "28000", httpStatus: 401 },
  invalid_password: { sqlstate: "28P01", httpStatus: 401 },
  dependent_objects_still_exist: { sqlstate: "2BP01", httpStatus: 409 },
  invalid_catalog_name: { sqlstate: "3D000", httpStatus: 404 },
  invalid_cursor_name: { sqlstate: "34000", httpStatus: 400 },
  serialization_failure: { sqlstate: "40001", httpStatus: 409 },
  insufficient_privilege: { sqlstate: "42501", httpStatus: 403 },
  syntax_error: { sqlstate: "42601", httpStatus: 400 },
  undefined_column: { sqlstate: "42703", httpStatus: 400 },
  undefined_object: { sqlstate: "42704", httpStatus: 404 },
  duplicate_object: { sqlstate: "42710", httpStatus: 409 },
  undefined_table: { sqlstate: "42P01", httpStatus: 404 },
  invalid_table_definition: { sqlstate: "42P16", httpStatus: 409 },
  wrong_object_type: { sqlstate: "42809", httpStatus: 409 },
  reserved_name: { sqlstate: "42939", httpStatus: 400 },
  too_many_connections: { sqlstate: "53300", httpStatus: 503 },
  program_limit_exceeded: { sqlstate: "54000", httpStatus: 413 },
  statement_too_complex: { sqlstate: "54001", httpStatus: 400 },
  object_not_in_prerequisite_state: { sqlstate: "55000", httpStatus: 409 },
  query_canceled: { sqlstate: "57014", httpStatus: 408 },
  admin_shutdown: { sqlstate: "57P01", httpStatus: 503 },
  crash_shutdown: { sqlstate: "57P02", httpStatus: 503 },
  cannot_connect_now: { sqlstate: "57P03", httpStatus: 503 },
  idle_session_timeout: { sqlstate: "57P05", httpStatus: 408 },
  data_corrupted: { sqlstate: "XX001", httpStatus: 500 },
  internal_error: { sqlstate: "XX000", httpStatus: 500 },
} as const satisfies Record<string, ConditionCodes>;

/** A condition name as PostgreSQL spells it, for example `invalid_password`. */
export type Condition = keyof typeof table;

export const conditions: Readonly<Record<Condition, ConditionCodes>> = table;
