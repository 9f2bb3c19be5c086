import java.util.Arrays;
import java.util.List;
import javax.persistence.Column;
import javax.persistence.Entity;
import javax.persistence.GeneratedValue;
import javax.persistence.GenerationType;
import javax.persistence.Id;
import javax.persistence.Table;
import org.hibernate.Session;
import org.hibernate.SessionFactory;
import org.hibernate.annotations.ColumnTransformer;
import org.hibernate.cfg.Configuration;

/**
 * Hibernate: a column transformer says what stands in the SQL for the column. The imports are those of Hibernate 3 to 5; 6 and
 * later have jakarta.persistence in the place of javax.persistence.
 */
public class WithHibernate {
    /** Functions in the statements: to be read and written, and to be compared in HQL. */
    @Entity(name = "Patient")
    @Table(name = "patient")
    public static class Patient {
        @Id
        int id;

        @ColumnTransformer(read = "env_decrypt(diagnosis)", write = "env_encrypt(CAST(? AS text), 'alias/patients')")
        @Column(name = "diagnosis")
        String diagnosis;

        /** JSON as text: the type is that of the cast. */
        @ColumnTransformer(read = "env_decrypt_jsonb(record)::text", write = "env_encrypt_jsonb(CAST(? AS jsonb), 'alias/patients')")
        @Column(name = "record")
        String record;

        @ColumnTransformer(read = "env_decrypt_bytea(photo)", write = "env_encrypt_bytea(?, 'alias/patients')")
        @Column(name = "photo")
        byte[] photo;

        Patient() {
        }

        Patient(int id, String diagnosis, String record, byte[] photo) {
            this.id = id;
            this.diagnosis = diagnosis;
            this.record = record;
            this.photo = photo;
        }
    }

    /** An encrypting trigger: plaintext is written to one column, and read from the other one. */
    @Entity(name = "Person")
    @Table(name = "person")
    public static class Person {
        @Id
        @GeneratedValue(strategy = GenerationType.IDENTITY)
        Long id;

        String name;

        @ColumnTransformer(read = "env_decrypt(ssn_enc, 'person.ssn:' || id)")
        @Column(name = "ssn")
        String ssn;

        Person() {
        }

        Person(String name, String ssn) {
            this.name = name;
            this.ssn = ssn;
        }
    }

    public static void main(String[] arguments) {
        // logServerErrorDetail=false: else the message of a failed batch has the statement with its plaintext.
        Configuration configuration = new Configuration()
                .addAnnotatedClass(Patient.class)
                .addAnnotatedClass(Person.class)
                .setProperty("hibernate.dialect", "org.hibernate.dialect.PostgreSQLDialect")
                .setProperty("hibernate.connection.driver_class", "org.postgresql.Driver")
                .setProperty("hibernate.connection.url", "jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/"
                        + System.getenv("PGDATABASE") + "?prepareThreshold=0&logServerErrorDetail=false")
                .setProperty("hibernate.connection.username", System.getenv("PGUSER"))
                .setProperty("hibernate.connection.password", System.getenv("PGPASSWORD"))
                .setProperty("hibernate.jdbc.batch_size", "20");
        SessionFactory factory = configuration.buildSessionFactory();
        byte[] photo = {(byte) 0xff, (byte) 0xd8};

        Session session = factory.openSession();
        session.beginTransaction();
        session.save(new Patient(1, "asthma", "{\"since\": 2019}", photo));
        session.save(new Patient(2, "", null, new byte[0]));
        session.save(new Patient(3, null, "{\"since\": null}", null));
        Person ada = new Person("Ada", "078-05-1120");
        session.save(ada);
        session.getTransaction().commit();
        session.close();

        session = factory.openSession();
        session.beginTransaction();
        Patient first = (Patient) session.get(Patient.class, 1);
        check(first.diagnosis.equals("asthma") && first.record.equals("{\"since\": 2019}") && Arrays.equals(first.photo, photo));
        Patient second = (Patient) session.get(Patient.class, 2);
        check(second.diagnosis.isEmpty() && second.record == null && second.photo.length == 0);
        Patient third = (Patient) session.get(Patient.class, 3);
        check(third.diagnosis == null && third.record.equals("{\"since\": null}") && third.photo == null);
        // In HQL the attribute is the plaintext: a scan that decrypts. A search token is faster.
        List<?> found = session.createQuery("from Patient where diagnosis = :diagnosis").setString("diagnosis", "asthma").list();
        check(found.size() == 1 && found.get(0) == first);
        first.diagnosis = "gout";
        // All columns are written, also those that have not changed.
        Person person = (Person) session.get(Person.class, ada.id);
        check(person.ssn.equals("078-05-1120"));
        person.name = "Ada Byron";
        session.getTransaction().commit();
        session.close();

        session = factory.openSession();
        check(((Patient) session.get(Patient.class, 1)).diagnosis.equals("gout"));
        check(((Person) session.get(Person.class, ada.id)).ssn.equals("078-05-1120"));
        Object stored = session.createSQLQuery("SELECT count(*) FROM patient WHERE env_is_envelope(diagnosis)").uniqueResult();
        check(((Number) stored).intValue() == 2);
        stored = session.createSQLQuery("SELECT count(ssn) FROM person").uniqueResult();
        check(((Number) stored).intValue() == 0);
        session.close();
        factory.close();
    }

    private static void check(boolean holds) {
        if (!holds) {
            throw new AssertionError("a value read back is not what was written");
        }
    }
}
