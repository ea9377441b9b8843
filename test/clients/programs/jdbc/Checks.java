/** Runs named checks, prints one JSON line for each, and connects with the parameters from libpq's environment variables. */

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public abstract class Checks {
  static final String USER = System.getenv("PGUSER");
  static final String HORSE = "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148 \ud83d\udc0e ' \" \\ ? $1";

  interface Action {
    void run() throws Exception;
  }

  static void check(String name, Action action) {
    try {
      action.run();
      System.out.println("{\"check\": " + quote(name) + ", \"ok\": true}");
    } catch (Throwable error) {
      System.out.println("{\"check\": " + quote(name) + ", \"ok\": false, \"message\": " + quote(error.toString()) + "}");
    }
  }

  static String quote(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      json.append(c == '"' || c == '\\' || c < ' ' || c > '~' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
    }
    return json.append('"').toString();
  }

  static void same(Object actual, Object expected, String what) {
    if (actual == null ? expected != null : !actual.equals(expected)) {
      throw new AssertionError(what + ": got " + actual + ", expected " + expected);
    }
  }

  static SQLException refused(String state, Action action) throws Exception {
    try {
      action.run();
    } catch (SQLException error) {
      same(error.getSQLState(), state, "SQLSTATE");
      return error;
    }
    throw new AssertionError("was not refused");
  }

  static Connection connect(String... pairs) throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", USER);
    properties.setProperty("password", System.getenv("PGPASSWORD"));
    for (int i = 0; i < pairs.length; i += 2) {
      properties.setProperty(pairs[i], pairs[i + 1]);
    }
    String place = System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    return DriverManager.getConnection("jdbc:postgresql://" + place, properties);
  }

  static String one(Connection conn, String sql) throws SQLException {
    try (Statement statement = conn.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      return rows.getString(1);
    }
  }

  static void run(Connection conn, String sql) throws SQLException {
    try (Statement statement = conn.createStatement()) {
      statement.execute(sql);
    }
  }
}
