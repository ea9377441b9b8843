# What ruby-pg does with a server; connection parameters come from libpq's environment variables.

require "json"
require "pg"

USER = ENV.fetch("PGUSER")
HORSE = "Příliš žluťoučký kůň \u{1F40E} ' \" \\ ? $1"
BYTES = (0..255).to_a.pack("C*")

def check(name)
  yield
  puts JSON.generate(check: name, ok: true)
rescue StandardError => error
  puts JSON.generate(check: name, ok: false, message: "#{error.class}: #{error.message}".scrub)
ensure
  $stdout.flush
end

def same(actual, expected, what = "value")
  raise "#{what}: got #{actual.inspect[0, 300]}, expected #{expected.inspect[0, 300]}" unless actual == expected
end

def refused(error_class)
  yield
rescue error_class => error
  error
else
  raise "was not refused"
end

def connect(**options)
  conn = PG.connect(**options)
  yield conn
ensure
  conn&.finish
end

def two
  connect { |conn| connect { |other| yield conn, other } }
end

def one(conn, sql, parameters = [])
  conn.exec_params(sql, parameters).getvalue(0, 0)
end

check "logs in with a password and acts as its own role" do
  connect { |conn| same(one(conn, "SELECT current_user || ' ' || session_user"), "#{USER} #{USER}") }
end

check "sees the server's parameters and its own application_name" do
  connect(application_name: "ruby checks", options: "-c statement_timeout=12345") do |conn|
    same(conn.parameter_status("server_encoding"), "UTF8", "server_encoding")
    same(conn.parameter_status("application_name"), "ruby checks", "application_name")
    same(one(conn, "SHOW statement_timeout"), "12345ms", "statement_timeout from options")
    same(conn.server_version >= 150_000, true, "server version")
  end
end

check "is refused with 28P01 for a wrong password" do
  error = refused(PG::ConnectionBad) { connect(password: "not the password") {} }
  same(error.message.include?("password authentication failed for user \"#{USER}\""), true, error.message)
end

check "is refused with the same words for an unknown user" do
  error = refused(PG::ConnectionBad) { connect(user: "nobody_of_this_name") {} }
  same(error.message.include?('password authentication failed for user "nobody_of_this_name"'), true, error.message)
end

check "round-trips parameters of many types" do
  connect do |conn|
    conn.type_map_for_queries = PG::BasicTypeMapForQueries.new(conn)
    conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
    at = Time.at(1_709_231_399, 123_456, :usec)
    {
      "int8" => -9_223_372_036_854_775_807, "bool" => true, "text" => HORSE, "float8" => 0.1,
      "numeric" => BigDecimal("12345678901234567890.0123456789"), "int8[]" => [1, nil, -3],
      "text[]" => ["a", 'b,"c"', nil, "", HORSE], "timestamptz" => at
    }.each { |type, value| same(one(conn, "SELECT $1::#{type}", [value]), value, type) }
    same(one(conn, "SELECT $1::text", [nil]), nil, "null")
  end
end

check "sends and receives binary formats" do
  connect do |conn|
    sent = [{ value: BYTES, format: 1, type: 17 }, { value: [42].pack("N"), format: 1, type: 23 }]
    row = conn.exec_params("SELECT $1, $2 + 1", sent, 1).values[0]
    same(row, [BYTES, [43].pack("N")])
  end
end

check "repeats a prepared statement" do
  connect do |conn|
    conn.prepare("addition", "SELECT $1::int + 1, $2::text")
    same(conn.describe_prepared("addition").nparams, 2, "described parameters")
    20.times { |n| same(conn.exec_prepared("addition", [n, HORSE]).values[0], [(n + 1).to_s, HORSE]) }
  end
end

check "keeps what it commits and loses what it rolls back" do
  two do |conn, other|
    conn.transaction do
      conn.exec_params("INSERT INTO account VALUES ($1, $2, $3)", [100, "kept", 1])
      same(conn.transaction_status, PG::PQTRANS_INTRANS, "status")
      same(one(other, "SELECT count(*) FROM account WHERE id = 100"), "0", "before the commit")
    end
    refused(ArgumentError) do
      conn.transaction do
        conn.exec("DELETE FROM account WHERE id = 100")
        raise ArgumentError, "roll back"
      end
    end
    same(one(other, "SELECT owner FROM account WHERE id = 100"), "kept")
  end
end

check "returns to a savepoint" do
  connect do |conn|
    conn.exec("BEGIN; INSERT INTO account VALUES (110, 'outer', 1); SAVEPOINT before_duplicate")
    refused(PG::UniqueViolation) { conn.exec("INSERT INTO account VALUES (110, 'inner', 1)") }
    conn.exec("ROLLBACK TO SAVEPOINT before_duplicate; UPDATE account SET balance = 2 WHERE id = 110; COMMIT")
    same(one(conn, "SELECT balance FROM account WHERE id = 110"), "2.00")
  end
end

check "is refused with 25P02 after an error until it rolls back" do
  connect do |conn|
    conn.exec("BEGIN")
    refused(PG::DivisionByZero) { conn.exec("SELECT 1/0") }
    same(conn.transaction_status, PG::PQTRANS_INERROR, "status")
    error = refused(PG::InFailedSqlTransaction) { conn.exec("SELECT 1") }
    same(error.result.error_field(PG::PG_DIAG_SQLSTATE), "25P02")
    conn.exec("ROLLBACK")
    same(one(conn, "SELECT 1"), "1")
  end
end

check "gets every field of a constraint violation" do
  connect do |conn|
    result = refused(PG::UniqueViolation) { conn.exec("INSERT INTO account VALUES (1, 'x', 1)") }.result
    {
      PG::PG_DIAG_SEVERITY => "ERROR", PG::PG_DIAG_SQLSTATE => "23505", PG::PG_DIAG_SCHEMA_NAME => "public",
      PG::PG_DIAG_TABLE_NAME => "account", PG::PG_DIAG_CONSTRAINT_NAME => "account_pkey",
      PG::PG_DIAG_MESSAGE_DETAIL => "Key (id)=(1) already exists."
    }.each { |field, value| same(result.error_field(field), value) }
    result = refused(PG::NotNullViolation) { conn.exec("INSERT INTO account VALUES (2)") }.result
    same(result.error_field(PG::PG_DIAG_COLUMN_NAME), "owner")
  end
end

check "gets the position of a syntax error" do
  connect do |conn|
    error = refused(PG::SyntaxError) { conn.exec("SELECT 1,, 2") }
    same(error.result.error_field(PG::PG_DIAG_STATEMENT_POSITION), "10")
  end
end

check "gets detail and hint of a raised error" do
  connect do |conn|
    raising = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$"
    result = refused(PG::InvalidParameterValue) { conn.exec(raising) }.result
    same(result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY), "no")
    same(result.error_field(PG::PG_DIAG_MESSAGE_DETAIL), "Why.")
    same(result.error_field(PG::PG_DIAG_MESSAGE_HINT), "Do.")
  end
end

check "copies rows in and out" do
  connect do |conn|
    conn.exec("CREATE TEMP TABLE copied (id int, name text)")
    rows = (0...5000).map { |n| [n.to_s, n.even? ? HORSE : nil] }
    conn.copy_data("COPY copied FROM STDIN", PG::TextEncoder::CopyRow.new) do
      rows.each { |row| conn.put_copy_data(row) }
    end
    read = []
    conn.copy_data("COPY copied TO STDOUT", PG::TextDecoder::CopyRow.new) do
      while (row = conn.get_copy_data)
        read << row
      end
    end
    same(read == rows, true, "the rows came back")
  end
end

check "goes on after a failed copy" do
  connect do |conn|
    conn.exec("CREATE TEMP TABLE copied (id int)")
    refused(PG::InvalidTextRepresentation) do
      conn.copy_data("COPY copied FROM STDIN") { conn.put_copy_data("1\nnot a number\n") }
    end
    # An exception in the block makes ruby-pg send CopyFail.
    refused(ArgumentError) do
      conn.copy_data("COPY copied FROM STDIN") do
        conn.put_copy_data("1\n")
        raise ArgumentError, "the client gives up"
      end
    end
    same(one(conn, "SELECT count(*) FROM copied"), "0")
  end
end

check "reads 100,000 rows through a cursor" do
  connect do |conn|
    total = 0
    conn.transaction do
      conn.exec("DECLARE many CURSOR FOR SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n")
      loop do
        rows = conn.exec("FETCH 5000 FROM many")
        break if rows.ntuples.zero?

        total += rows.column_values(0).sum(&:to_i)
      end
    end
    same(total, 5_000_050_000)
  end
end

check "streams 100,000 rows in single-row mode" do
  connect do |conn|
    conn.send_query("SELECT generate_series(1, 100000)")
    conn.set_single_row_mode
    total = 0
    conn.get_result.stream_each_row { |row| total += row[0].to_i }
    same(total, 5_000_050_000)
  end
end

check "sends and receives a value of 20 MB" do
  connect do |conn|
    content = BYTES * (20 * 4096)
    row = conn.exec_params("SELECT $1::bytea", [{ value: content, format: 1 }], 1).getvalue(0, 0)
    same(row == content, true, "content came back")
  end
end

check "cancels a running statement and goes on" do
  two do |conn, other|
    active = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query LIKE '%pg_sleep(60)%'"
    pid = conn.backend_pid
    canceller = Thread.new do
      sleep 0.02 while one(other, active, [pid]) == "0"
      conn.cancel
    end
    error = refused(PG::QueryCanceled) { conn.exec("SELECT pg_sleep(60)") }
    same(canceller.value, nil, "error of the cancel")
    same(error.result.error_field(PG::PG_DIAG_SQLSTATE), "57014")
    same(one(conn, "SELECT 1"), "1")
  end
end

check "receives notices" do
  connect do |conn|
    notices = []
    conn.set_notice_receiver { |result| notices << result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY) }
    conn.exec("DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$")
    same(notices, %w[first second])
  end
end

check "receives notifications from another session" do
  two do |conn, other|
    conn.exec("LISTEN ruby_channel")
    other.exec_params("SELECT pg_notify('ruby_channel', $1)", [HORSE])
    received = nil
    conn.wait_for_notify(20) { |channel, pid, payload| received = [channel, pid, payload] }
    same(received, ["ruby_channel", other.backend_pid, HORSE])
  end
end

check "pipelines statements and gets each result in order" do
  connect do |conn|
    conn.enter_pipeline_mode
    100.times { |n| conn.send_query_params("SELECT $1::int", [n]) }
    conn.pipeline_sync
    values = 100.times.map do
      result = conn.get_result
      conn.get_result
      result.getvalue(0, 0).to_i
    end
    same(values, (0...100).to_a)
    same(conn.get_result.result_status, PG::PGRES_PIPELINE_SYNC, "sync")
    conn.exit_pipeline_mode
    same(one(conn, "SELECT 1"), "1")
  end
end

check "resets its session" do
  connect do |conn|
    conn.exec("SET work_mem = '7MB'")
    conn.reset
    same(one(conn, "SHOW work_mem") == "7MB", false, "work_mem is kept")
  end
end
