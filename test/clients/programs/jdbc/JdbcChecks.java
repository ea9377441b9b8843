/** What the PostgreSQL JDBC driver does with a server; one JSON line for each check. */

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

public class JdbcChecks extends Checks {
  public static void main(String[] arguments) throws Exception {
    logins();
    parameters();
    transactions();
    errors();
    copies();
    results();
    asynchronous();
    batches();
  }

  static void logins() {
    check("logs in with a password and acts as its own role", () -> {
      try (Connection conn = connect()) {
        same(one(conn, "SELECT current_user || ' ' || session_user"), USER + " " + USER, "user");
      }
    });
    check("sees the server's parameters and its own application_name", () -> {
      try (Connection conn = connect("ApplicationName", "jdbc checks", "options", "-c statement_timeout=12345")) {
        same(conn.unwrap(PGConnection.class).getParameterStatus("server_encoding"), "UTF8", "server_encoding");
        same(conn.unwrap(PGConnection.class).getParameterStatus("application_name"), "jdbc checks", "application_name");
        same(one(conn, "SHOW statement_timeout"), "12345ms", "statement_timeout from options");
        same(conn.getMetaData().getDatabaseMajorVersion() >= 15, true, "major version");
      }
    });
    check("is refused with 28P01 for a wrong password", () -> {
      SQLException error = refused("28P01", () -> connect("password", "not the password").close());
      String message = "FATAL: password authentication failed for user \"" + USER + "\"";
      same(error.getMessage(), message, "message");
    });
    check("is refused with the same words for an unknown user", () -> {
      SQLException error = refused("28P01", () -> connect("user", "nobody_of_this_name").close());
      String message = "FATAL: password authentication failed for user \"nobody_of_this_name\"";
      same(error.getMessage(), message, "message");
    });
  }

  static void parameters() {
    for (String mode : new String[] {"extended", "extendedForPrepared", "extendedCacheEverything"}) {
      check("round-trips parameters of many types in query mode " + mode, () -> {
        try (Connection conn = connect("preferQueryMode", mode)) {
          roundTrip(conn);
        }
      });
    }
    check("runs with parameters in query mode simple", () -> {
      try (Connection conn = connect("preferQueryMode", "simple"); PreparedStatement query = conn.prepareStatement("SELECT ? || ?")) {
        query.setString(1, HORSE);
        query.setInt(2, 7);
        try (ResultSet rows = query.executeQuery()) {
          rows.next();
          same(rows.getString(1), HORSE + "7", "text");
        }
      }
    });
    check("repeats a prepared statement", () -> {
      // After prepareThreshold runs (5) the driver changes from the unnamed statement to a named one, and to binary.
      try (Connection conn = connect(); PreparedStatement add = conn.prepareStatement("SELECT ?::int + 1, ?::text, ?::bytea")) {
        for (int number = 0; number < 20; number++) {
          add.setInt(1, number);
          add.setString(2, HORSE);
          add.setBytes(3, new byte[] {0, 1, (byte) 255});
          try (ResultSet rows = add.executeQuery()) {
            rows.next();
            same(rows.getInt(1), number + 1, "sum");
            same(rows.getString(2), HORSE, "text");
            same(Arrays.toString(rows.getBytes(3)), "[0, 1, -1]", "bytea");
          }
        }
        same(Integer.parseInt(one(conn, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%+ 1%'")) >= 1, true, "named statement");
      }
    });
    check("describes parameters and columns of a statement", () -> {
      try (Connection conn = connect(); PreparedStatement query = conn.prepareStatement("SELECT * FROM account WHERE id = ? AND owner = ?")) {
        same(query.getParameterMetaData().getParameterTypeName(1), "int4", "type of the first parameter");
        same(query.getMetaData().getColumnTypeName(3), "numeric", "type of the third column");
      }
    });
    check("reads the catalogs through DatabaseMetaData", () -> {
      try (Connection conn = connect(); ResultSet keys = conn.getMetaData().getPrimaryKeys(null, "public", "account")) {
        same(keys.next(), true, "has a primary key");
        same(keys.getString("PK_NAME"), "account_pkey", "name of the primary key");
      }
    });
  }

  static void roundTrip(Connection conn) throws SQLException {
    String sql = "SELECT ?::int8, ?::numeric, ?::bool, ?::text, ?::text, ?::bytea, ?::int4[], ?::text[], ?::timestamptz, ?::date, ?::uuid";
    byte[] bytes = new byte[256];
    for (int i = 0; i < 256; i++) {
      bytes[i] = (byte) i;
    }
    OffsetDateTime at = OffsetDateTime.of(2024, 2, 29, 23, 59, 59, 123456000, ZoneOffset.ofHoursMinutes(5, 30));
    UUID uuid = UUID.fromString("6b1f4f9e-2f5a-4c1e-9d43-0b8f5b1d7a10");
    try (PreparedStatement statement = conn.prepareStatement(sql)) {
      for (int time = 0; time < 8; time++) {
        statement.setLong(1, -9223372036854775807L);
        statement.setBigDecimal(2, new BigDecimal("12345678901234567890.012345678900"));
        statement.setBoolean(3, true);
        statement.setString(4, HORSE);
        statement.setNull(5, Types.VARCHAR);
        statement.setBytes(6, bytes);
        statement.setArray(7, conn.createArrayOf("int4", new Integer[] {1, null, -3}));
        statement.setArray(8, conn.createArrayOf("text", new String[] {"a", "b,\"c\"", null, "", HORSE}));
        statement.setObject(9, at);
        statement.setObject(10, LocalDate.of(1999, 12, 31));
        statement.setObject(11, uuid);
        try (ResultSet rows = statement.executeQuery()) {
          rows.next();
          same(rows.getLong(1), -9223372036854775807L, "int8");
          same(rows.getBigDecimal(2).toPlainString(), "12345678901234567890.012345678900", "numeric");
          same(rows.getBoolean(3), true, "bool");
          same(rows.getString(4), HORSE, "text");
          same(rows.getString(5), null, "null");
          same(Arrays.equals(rows.getBytes(6), bytes), true, "bytea");
          same(Arrays.toString((Object[]) rows.getArray(7).getArray()), "[1, null, -3]", "int4[]");
          same(((Object[]) rows.getArray(8).getArray())[4], HORSE, "text[]");
          same(rows.getObject(9, OffsetDateTime.class).toInstant(), at.toInstant(), "timestamptz");
          same(rows.getObject(10, LocalDate.class), LocalDate.of(1999, 12, 31), "date");
          same(rows.getObject(11, UUID.class), uuid, "uuid");
        }
      }
    }
  }

  static void transactions() {
    check("keeps what it commits and loses what it rolls back", () -> {
      try (Connection conn = connect(); Connection other = connect()) {
        conn.setAutoCommit(false);
        run(conn, "INSERT INTO account VALUES (100, 'kept', 1)");
        same(one(other, "SELECT count(*) FROM account WHERE id = 100"), "0", "before the commit");
        conn.commit();
        run(conn, "DELETE FROM account WHERE id = 100");
        conn.rollback();
        same(one(other, "SELECT owner FROM account WHERE id = 100"), "kept", "after the rollback");
      }
    });
    check("returns to a savepoint", () -> {
      try (Connection conn = connect()) {
        conn.setAutoCommit(false);
        run(conn, "INSERT INTO account VALUES (110, 'outer', 1)");
        Savepoint savepoint = conn.setSavepoint("before_duplicate");
        refused("23505", () -> run(conn, "INSERT INTO account VALUES (110, 'inner', 1)"));
        conn.rollback(savepoint);
        run(conn, "UPDATE account SET balance = 2 WHERE id = 110");
        conn.commit();
        same(one(conn, "SELECT balance FROM account WHERE id = 110"), "2.00", "balance");
      }
    });
    check("is refused with 25P02 after an error until it rolls back", () -> {
      try (Connection conn = connect()) {
        conn.setAutoCommit(false);
        refused("22012", () -> run(conn, "SELECT 1/0"));
        refused("25P02", () -> run(conn, "SELECT 1"));
        conn.rollback();
        same(one(conn, "SELECT 1"), "1", "after the rollback");
      }
    });
    check("uses isolation level and read-only mode of a transaction", () -> {
      try (Connection conn = connect()) {
        conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        conn.setReadOnly(true);
        conn.setAutoCommit(false);
        same(one(conn, "SHOW transaction_isolation"), "serializable", "isolation");
        refused("25006", () -> run(conn, "DELETE FROM account"));
        conn.rollback();
      }
    });
  }

  static void errors() {
    check("gets every field of a constraint violation", () -> {
      try (Connection conn = connect()) {
        PSQLException error = (PSQLException) refused("23505", () -> run(conn, "INSERT INTO account VALUES (1, 'x', 1)"));
        same(error.getServerErrorMessage().getSeverity(), "ERROR", "severity");
        same(error.getServerErrorMessage().getSchema(), "public", "schema");
        same(error.getServerErrorMessage().getTable(), "account", "table");
        same(error.getServerErrorMessage().getConstraint(), "account_pkey", "constraint");
        same(error.getServerErrorMessage().getDetail(), "Key (id)=(1) already exists.", "detail");
        error = (PSQLException) refused("23502", () -> run(conn, "INSERT INTO account VALUES (2)"));
        same(error.getServerErrorMessage().getColumn(), "owner", "column");
      }
    });
    check("gets the position of a syntax error", () -> {
      try (Connection conn = connect()) {
        PSQLException error = (PSQLException) refused("42601", () -> run(conn, "SELECT 1,, 2"));
        same(error.getServerErrorMessage().getPosition(), 10, "position");
      }
    });
    check("gets detail and hint of a raised error", () -> {
      try (Connection conn = connect()) {
        String raise = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$";
        PSQLException error = (PSQLException) refused("22023", () -> run(conn, raise));
        same(error.getServerErrorMessage().getMessage(), "no", "message");
        same(error.getServerErrorMessage().getDetail(), "Why.", "detail");
        same(error.getServerErrorMessage().getHint(), "Do.", "hint");
      }
    });
  }

  static void copies() {
    check("copies rows in and out", () -> {
      try (Connection conn = connect()) {
        CopyManager manager = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder text = new StringBuilder();
        for (int n = 0; n < 5000; n++) {
          text.append(n).append("\trow ").append(n).append('\n');
        }
        run(conn, "CREATE TEMP TABLE copied (id int, name text)");
        same(manager.copyIn("COPY copied FROM STDIN", new StringReader(text.toString())), 5000L, "rows copied in");
        StringWriter out = new StringWriter();
        same(manager.copyOut("COPY copied TO STDOUT", out), 5000L, "rows copied out");
        same(out.toString().contentEquals(text), true, "the text came back");
      }
    });
    check("goes on after a failed copy", () -> {
      try (Connection conn = connect()) {
        CopyManager manager = conn.unwrap(PGConnection.class).getCopyAPI();
        run(conn, "CREATE TEMP TABLE copied (id int)");
        refused("22P02", () -> manager.copyIn("COPY copied FROM STDIN", new StringReader("1\nnot a number\n")));
        CopyIn abandoned = manager.copyIn("COPY copied FROM STDIN");
        abandoned.writeToCopy("1\n".getBytes(StandardCharsets.UTF_8), 0, 2);
        abandoned.cancelCopy();
        same(one(conn, "SELECT count(*) FROM copied"), "0", "rows");
      }
    });
  }

  static void results() {
    check("reads 100,000 rows through a cursor", () -> {
      // A fetch size outside autocommit makes the driver use a portal with a row limit.
      try (Connection conn = connect()) {
        conn.setAutoCommit(false);
        try (Statement statement = conn.createStatement()) {
          statement.setFetchSize(1000);
          long total = 0;
          try (ResultSet rows = statement.executeQuery("SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n")) {
            while (rows.next()) {
              total += rows.getLong(1);
            }
          }
          same(total, 5000050000L, "sum");
        }
      }
    });
    check("sends and receives a value of 20 MB", () -> {
      byte[] content = new byte[20 * 1024 * 1024];
      for (int i = 0; i < content.length; i++) {
        content[i] = (byte) i;
      }
      try (Connection conn = connect(); PreparedStatement statement = conn.prepareStatement("SELECT ?::bytea")) {
        statement.setBytes(1, content);
        try (ResultSet rows = statement.executeQuery()) {
          rows.next();
          same(Arrays.equals(rows.getBytes(1), content), true, "content came back");
        }
      }
    });
    check("runs several statements in one string and gets every result", () -> {
      try (Connection conn = connect(); Statement statement = conn.createStatement()) {
        same(statement.execute("SELECT 1; CREATE TEMP TABLE one (id int); INSERT INTO one VALUES (1), (2)"), true, "first is a result set");
        same(statement.getMoreResults(), false, "second is a result set");
        same(statement.getUpdateCount(), 0, "second count");
        same(statement.getMoreResults(), false, "third is a result set");
        same(statement.getUpdateCount(), 2, "third count");
      }
    });
  }

  static void asynchronous() {
    check("cancels a running statement and goes on", () -> {
      try (Connection conn = connect(); Connection other = connect(); Statement sleeping = conn.createStatement()) {
        int pid = conn.unwrap(PGConnection.class).getBackendPID();
        Thread canceller = new Thread(() -> {
          try {
            String active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid = " + pid;
            while (one(other, active).equals("0")) {
              Thread.sleep(20);
            }
            sleeping.cancel();
          } catch (Exception error) {
            error.printStackTrace();
          }
        });
        canceller.start();
        SQLException error = refused("57014", () -> sleeping.execute("SELECT pg_sleep(60)"));
        canceller.join();
        same(error.getMessage(), "ERROR: canceling statement due to user request", "message");
        same(one(conn, "SELECT 1"), "1", "after the cancel");
      }
    });
    check("cancels a statement that exceeds its query timeout", () -> {
      try (Connection conn = connect(); Statement sleeping = conn.createStatement()) {
        sleeping.setQueryTimeout(1);
        refused("57014", () -> sleeping.execute("SELECT pg_sleep(60)"));
        same(one(conn, "SELECT 1"), "1", "after the timeout");
      }
    });
    check("receives notices", () -> {
      try (Connection conn = connect(); Statement statement = conn.createStatement()) {
        statement.execute("DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$");
        same(statement.getWarnings().getMessage(), "first", "first notice");
        same(statement.getWarnings().getNextWarning().getSQLState(), "01000", "SQLSTATE of the second");
      }
    });
    check("receives notifications from another session", () -> {
      try (Connection conn = connect(); Connection other = connect()) {
        run(conn, "LISTEN jdbc_channel");
        run(other, "NOTIFY jdbc_channel, 'hello'");
        PGNotification[] received = conn.unwrap(PGConnection.class).getNotifications(20000);
        same(received.length, 1, "notifications");
        same(received[0].getName() + " " + received[0].getParameter(), "jdbc_channel hello", "notification");
        same(received[0].getPID(), other.unwrap(PGConnection.class).getBackendPID(), "process id of the notifier");
      }
    });
  }

  static void batches() {
    for (String rewrite : new String[] {"false", "true"}) {
      check("pipelines a batch with reWriteBatchedInserts=" + rewrite, () -> {
        try (Connection conn = connect("reWriteBatchedInserts", rewrite)) {
          run(conn, "CREATE TEMP TABLE many (id int PRIMARY KEY, name text)");
          try (PreparedStatement insert = conn.prepareStatement("INSERT INTO many VALUES (?, ?)")) {
            for (int n = 0; n < 2000; n++) {
              insert.setInt(1, n);
              insert.setString(2, HORSE);
              insert.addBatch();
            }
            same(insert.executeBatch().length, 2000, "update counts");
          }
          same(one(conn, "SELECT count(*) || ' ' || sum(id) FROM many"), "2000 1999000", "rows");
        }
      });
    }
    check("reports the failing entry of a batch", () -> {
      try (Connection conn = connect(); Statement batch = conn.createStatement()) {
        run(conn, "CREATE TEMP TABLE many (id int PRIMARY KEY)");
        conn.setAutoCommit(false);
        batch.addBatch("INSERT INTO many VALUES (1)");
        batch.addBatch("INSERT INTO many VALUES (1)");
        batch.addBatch("INSERT INTO many VALUES (2)");
        BatchUpdateException error = (BatchUpdateException) refused("23505", () -> batch.executeBatch());
        same(error.getUpdateCounts().length, 3, "update counts");
        conn.rollback();
        same(one(conn, "SELECT count(*) FROM many"), "0", "rows");
      }
    });
    check("gets generated keys", () -> {
      try (Connection conn = connect()) {
        run(conn, "CREATE TEMP TABLE keyed (id int GENERATED ALWAYS AS IDENTITY, name text)");
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO keyed (name) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
          insert.setString(1, "first");
          insert.executeUpdate();
          try (ResultSet keys = insert.getGeneratedKeys()) {
            keys.next();
            same(keys.getInt("id"), 1, "generated key");
          }
        }
      }
    });
  }
}
