import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.util.Map;

/** Logs in as the environment says, as libpq reads it, and prints whom the session acts as and where. */
public class LogIn {
    public static void main(String[] args) throws Exception {
        Map<String, String> env = System.getenv();
        String url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        try (Connection connection = DriverManager.getConnection(url, env.get("PGUSER"), env.get("PGPASSWORD"));
                ResultSet result = connection.createStatement().executeQuery(
                        "SELECT current_user || ' ' || current_database()")) {
            result.next();
            System.out.println(result.getString(1));
        }
    }
}
