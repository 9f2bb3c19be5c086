//! The local key provider: its key file, everything that can be wrong with it, and key versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use testkit::{Fixture, Session, process};

testkit::shared_fixture!(Fixture::local());

/// A new directory beside the data directory, for a key file that a test may damage.
fn new_directory(fixture: &Fixture, name: &str) -> PathBuf {
    let path = fixture.cluster.directory().join(name);
    fs::create_dir(&path).expect("the directory is new");
    process::give_to_server(&path);
    path
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode can be changed");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o7777
}

fn write_for_server(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("the file can be written");
    set_mode(path, 0o600);
    process::give_to_server(path);
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn creating_a_key_makes_a_private_file_and_leaves_no_other() {
    let fixture = fixture();
    let directory = new_directory(&fixture, "create");
    let file = directory.join("keys.json");
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", &file.display().to_string());
    let mut client = fixture.connect();

    assert_eq!(client.one::<String>("SELECT env_local_create_key('one')", &[]), "local:one");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(client.one::<String>("SELECT env_local_create_key('two')", &[]), "local:two");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(names_in(&directory), ["keys.json"]);

    let value = client.encrypt("a text", "local:two");
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&value]), "local:two");
    assert_eq!(client.one::<String>("SELECT (env_inspect($1)).provider", &[&value]), "local");
    assert_eq!(fixture.connect().decrypt(&value), "a text");

    let before = fs::read(&file).expect("the file can be read");
    client.fail("SELECT env_local_create_key('one')", &[]).with("42710").says("local:one");
    for name in ["", "a b", "../one", "local:", "naïve"] {
        client.fail("SELECT env_local_create_key($1)", &[&name]).with("22023");
    }
    client.fail("SELECT env_local_create_key(NULL)", &[]).with("22004").says("name");
    assert_eq!(fs::read(&file).expect("the file can be read"), before, "a failure changes nothing");

    let mut stranger = fixture.connect_as("stranger", &["envelope_encrypt", "envelope_admin"]);
    stranger.fail("SELECT env_local_create_key('three')", &[]).with("42501");
    stranger.fail("SELECT env_local_rotate_key('one')", &[]).with("42501");
}

#[test]
fn a_file_that_cannot_be_trusted_is_refused_with_its_reason() {
    let fixture = fixture();
    let directory = new_directory(&fixture, "refused");
    let file = directory.join("keys.json");
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", &file.display().to_string());
    fixture.cluster.sql("SELECT env_local_create_key('dev')");
    let value = fixture.connect().encrypt("a text", "local:dev");
    let good = fs::read(&file).expect("the file can be read");
    let text = String::from_utf8(good.clone()).expect("the file is JSON");
    let key = longest_word(&text);

    let check = |reason: &str| {
        let mut client = fixture.connect();
        let failures = [
            client.fail_to_encrypt("local:dev"),
            client.fail_to_decrypt(&value),
            client.fail("SELECT env_local_rotate_key('dev')", &[]),
        ];
        for failure in failures {
            let failure = failure.with("F0000").says(reason).says("keys.json");
            assert!(!failure.hint.is_empty() && !failure.text().contains(&key), "{failure:?}");
        }
        client
    };

    for unsafe_mode in [0o640, 0o604, 0o620, 0o660, 0o666] {
        set_mode(&file, unsafe_mode);
        check(&format!("{unsafe_mode:04o}"));
        assert_eq!(fs::read(&file).expect("the file can be read"), good);
    }

    let half = good[..good.len() / 2].to_vec();
    let other_format = text.replacen(": 1", ": 7", 1).into_bytes();
    let short_key = text.replacen(&key, "AAAA", 1).into_bytes();
    let no_version = text.replacen("\"current\": 1", "\"current\": 9", 1).into_bytes();
    assert!([&other_format, &short_key, &no_version].iter().all(|changed| **changed != good));
    for (corrupt, reason) in [
        (Vec::new(), "corrupt"),
        (b"not json".to_vec(), "corrupt"),
        (half, "corrupt"),
        (short_key, "corrupt"),
        (no_version, "corrupt"),
        (other_format, "format"),
    ] {
        write_for_server(&file, &corrupt);
        let mut client = check(reason);
        client.fail("SELECT env_local_create_key('two')", &[]).with("F0000").says(reason);
        assert_eq!(fs::read(&file).expect("the file can be read"), corrupt, "it is not overwritten");
    }

    // It is read whole, and its length is whatever somebody says.
    let large = fs::File::options().write(true).open(&file).expect("the file can be opened");
    large.set_len(8 << 30).expect("it has no blocks");
    check("larger than");
    fs::remove_file(&file).expect("the file can be removed");
    check("does not exist");
    fs::create_dir(&file).expect("a directory in its place");
    process::give_to_server(&file);
    check("is not a file");
    fs::remove_dir(&file).expect("the directory can be removed");
    fs::write(&file, &good).expect("a file of this user");
    set_mode(&file, 0o600);
    if rustix::process::geteuid().is_root() {
        // Only root can make a file that the server's user cannot read.
        check("cannot be read");
    }
    write_for_server(&file, &good);
    assert_eq!(fixture.connect().decrypt(&value), "a text", "with the file back, everything is back");
}

#[test]
fn a_missing_key_is_told_from_a_missing_file() {
    let fixture = fixture();
    let mut client = fixture.connect();
    let failure = client.fail_to_encrypt("local:nobody").with("42704").says("local:nobody");
    assert!(!failure.hint.is_empty());
    client.fail("SELECT env_local_rotate_key('nobody')", &[]).with("42704").says("local:nobody");

    let value = client.encrypt("a text", "local:dev");
    let directory = new_directory(&fixture, "missing");
    let file = directory.join("keys.json").display().to_string();
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", &file);
    fixture.cluster.sql("SELECT env_local_create_key('other')");
    fixture.connect().fail_to_decrypt(&value).with("42704").says("local:dev");
    // A key with the same name in another file is another key.
    fixture.cluster.sql("SELECT env_local_create_key('dev')");
    fixture.connect().fail_to_decrypt(&value).with("22000");
}

#[test]
fn without_the_setting_the_provider_is_off() {
    let fixture = fixture();
    let value = fixture.connect().encrypt("a text", "local:dev");
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", "");
    let mut client = fixture.connect();
    for failure in [
        client.fail_to_encrypt("local:dev"),
        client.fail_to_decrypt(&value),
        client.fail("SELECT env_local_create_key('dev')", &[]),
        client.fail("SELECT env_local_rotate_key('dev')", &[]),
    ] {
        failure.with("55000").says("envelope_pg.local_keyring");
    }
    assert_eq!(client.one::<String>("SELECT env_key_id($1)", &[&value]), "local:dev", "headers need no key");
}

#[test]
fn values_outlive_the_rotation_of_their_key() {
    let fixture = fixture();
    fixture.cluster.sql("SELECT env_local_create_key('turning')");
    let mut values = vec![fixture.connect().encrypt("version 1", "local:turning")];
    for version in 2..=4 {
        let mut client = fixture.connect();
        assert_eq!(client.one::<i32>("SELECT env_local_rotate_key('turning')", &[]), version);
        values.push(client.encrypt(&format!("version {version}"), "local:turning"));
    }
    assert_eq!(mode(&fixture.keyring()), 0o600);
    let mut client = fixture.connect();
    for (index, value) in values.iter().enumerate() {
        assert_eq!(client.decrypt(value), format!("version {}", index + 1));
    }
}

#[test]
fn keys_made_at_the_same_time_are_all_kept() {
    const SESSIONS: usize = 6;
    const KEYS: usize = 10;
    let fixture = fixture();
    let names = |session: usize| (0..KEYS).map(move |key| format!("many-{session}-{key}"));
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let mut client = fixture.connect();
            scope.spawn(move || {
                for name in names(session) {
                    client.one::<String>("SELECT env_local_create_key($1)", &[&name]);
                    client.one::<i32>("SELECT env_local_rotate_key($1)", &[&name]);
                }
            });
        }
    });
    let mut client = fixture.connect();
    for name in (0..SESSIONS).flat_map(names) {
        client.encrypt("a text", &format!("local:{name}"));
        assert_eq!(client.one::<i32>("SELECT env_local_rotate_key($1)", &[&name]), 3, "{name}");
    }
}

#[test]
fn a_write_that_fails_or_was_cut_short_leaves_the_keys() {
    let fixture = fixture();
    let directory = new_directory(&fixture, "crash");
    let file = directory.join("keys.json");
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", &file.display().to_string());
    let mut client = fixture.connect();
    client.one::<String>("SELECT env_local_create_key('one')", &[]);
    let value = client.encrypt("a text", "local:one");

    // What a crash between writing and renaming leaves, under whatever name: it is in nobody's way.
    for name in [".keys.json.new", ".keys.json.tmp", "keys.json.new", "keys.json.tmp"] {
        write_for_server(&directory.join(name), b"{ half");
    }
    client.one::<String>("SELECT env_local_create_key('two')", &[]);
    assert_eq!(fixture.connect().decrypt(&value), "a text");
    for name in names_in(&directory).iter().filter(|name| *name != "keys.json") {
        fs::remove_file(directory.join(name)).expect("a file of this test");
    }

    let before = fs::read(&file).expect("the file can be read");
    set_mode(&directory, 0o500);
    client.fail("SELECT env_local_create_key('three')", &[]).with("F0000").says("keys.json");
    set_mode(&directory, 0o700);
    assert_eq!(fs::read(&file).expect("the file can be read"), before);
    assert_eq!(names_in(&directory), ["keys.json"]);
    client.one::<String>("SELECT env_local_create_key('three')", &[]);
}

#[test]
fn the_file_may_move_and_be_named_relative_to_the_data_directory() {
    let fixture = fixture();
    let directory = new_directory(&fixture, "moving");
    let (first, second) = (directory.join("first.json"), fixture.cluster.data_directory().join("second.json"));
    let _setting = fixture.cluster.set_for_now("envelope_pg.local_keyring", &first.display().to_string());
    let mut client = fixture.connect();
    client.one::<String>("SELECT env_local_create_key('one')", &[]);
    let value = client.encrypt("a text", "local:one");

    fs::rename(&first, &second).expect("the file can be moved");
    assert_eq!(client.decrypt(&value), "a text", "the session has its data key");
    assert!(client.one::<i32>("SELECT env_cache_flush()", &[]) > 0);
    client.fail_to_decrypt(&value).with("F0000").says("does not exist");
    client.fail_to_encrypt("local:one").with("F0000").says("does not exist");

    let _moved = fixture.cluster.set_for_now("envelope_pg.local_keyring", "second.json");
    assert_eq!(client.decrypt(&value), "a text");
    assert_eq!(fixture.connect().decrypt(&value), "a text");
}

/// The longest quoted word of the file: a key in base64.
fn longest_word(json: &str) -> String {
    json.split('"').max_by_key(|word| word.len()).expect("there are words").to_owned()
}
