//! A table's owner who wants to be superuser.

use testkit::Session;

/// SQL for a trap in a schema that has its owner's name: what runs `bait` as a superuser makes the owner one, though it says that it is
/// IMMUTABLE.
#[must_use]
pub fn trap(role: &str) -> String {
    format!(
        "CREATE FUNCTION {role}.trap() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
             BEGIN
                 IF current_setting('is_superuser') = 'on' THEN
                     EXECUTE 'ALTER ROLE {role} SUPERUSER';
                 END IF;
                 RETURN 1;
             END $$;
         CREATE FUNCTION {role}.bait(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT {role}.trap()'"
    )
}

/// Whether a role is superuser by now.
pub fn is_superuser(session: &mut impl Session, role: &str) -> bool {
    session.one("SELECT rolsuper FROM pg_roles WHERE rolname = $1", &[&role])
}
