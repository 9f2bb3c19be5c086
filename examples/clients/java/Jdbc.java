import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;

/** JDBC: setString is text, setBytes is bytea; JSON as Types.OTHER has no type, so env_encrypt_jsonb says what it is. */
public class Jdbc {
    private static final String INSERT = "INSERT INTO patient VALUES (?, env_encrypt(?, 'alias/patients', '{}', ?), "
            + "env_encrypt_jsonb(?, 'alias/patients'), env_encrypt_bytea(?, 'alias/patients'))";
    private static final String SELECT = "SELECT env_decrypt(diagnosis, 'patient.diagnosis:' || id), env_decrypt_jsonb(record) ->> 'since', "
            + "env_decrypt_bytea(photo) FROM patient ORDER BY id";

    public static void main(String[] arguments) throws Exception {
        // logServerErrorDetail=false: else the message of a failed batch has the statement with its plaintext.
        // prepareThreshold=0: no prepared statements that outlive a transaction, which a pool in transaction mode would lose.
        String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE") + "?prepareThreshold=0&logServerErrorDetail=false";
        try (Connection connection = DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"))) {
            String[] diagnoses = {"asthma", "", null};
            String[] records = {"{\"since\": 2019}", null, "{\"since\": null}"};
            byte[][] photos = {{(byte) 0xff, (byte) 0xd8}, {}, null};
            try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
                for (int row = 0; row < 3; row++) {
                    insert.setInt(1, row + 1);
                    insert.setString(2, diagnoses[row]);
                    insert.setString(3, "patient.diagnosis:" + (row + 1));
                    insert.setObject(4, records[row], Types.OTHER);
                    insert.setBytes(5, photos[row]);
                    insert.addBatch();
                }
                insert.executeBatch();
                insert.setInt(1, 1);
                insert.setString(2, "asthma");
                insert.addBatch();
                try {
                    insert.executeBatch();
                    throw new AssertionError("two rows have one id");
                } catch (BatchUpdateException error) {
                    check(error.getSQLState().equals("23505") && !error.toString().contains("asthma"));
                }
            }
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(SELECT)) {
                for (int row = 0; row < 3; row++) {
                    check(rows.next());
                    check(java.util.Objects.equals(rows.getString(1), diagnoses[row]));
                    check(java.util.Objects.equals(rows.getString(2), row == 0 ? "2019" : null));
                    check(Arrays.equals(rows.getBytes(3), photos[row]));
                }
            }
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO person (name, ssn) VALUES (?, ?)")) {
                insert.setString(1, "Ada");
                insert.setString(2, "078-05-1120");
                insert.executeUpdate();
            }
            try (Statement statement = connection.createStatement();
                    ResultSet rows = statement.executeQuery("SELECT ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person")) {
                check(rows.next() && rows.getString(1) == null && rows.getString(2).equals("078-05-1120"));
            }
        }
    }

    private static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError("a value read back is not what was written");
        }
    }
}
