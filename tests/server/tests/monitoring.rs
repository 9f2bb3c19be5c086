//! docs/prometheus: the queries run on a server as an exporter runs them, and the alerts and the dashboard are evaluated by
//! Prometheus on what they say, in calm and in trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use testkit::emulator::free_port;
use testkit::http::Message;
use testkit::{Client, Cluster, Fault, Fixture, Nonsense, Rule, Session, Stopped, process, wait_until};

/// One query of queries.yaml.
struct Query {
    name: String,
    sql: String,
    /// Columns, and what they are used as.
    usages: Vec<(String, String)>,
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/prometheus").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads queries.yaml, as far as it uses YAML.
fn queries() -> Vec<Query> {
    let mut queries: Vec<Query> = Vec::new();
    for line in file("queries.yaml").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        match (indent, queries.last_mut()) {
            (0, _) => {
                let name = text.trim_end_matches(':').to_owned();
                queries.push(Query { name, sql: String::new(), usages: Vec::new() });
            }
            (2, Some(_)) => assert!(["query: |", "metrics:"].contains(&text), "{line}"),
            (4, Some(query)) if text.starts_with("- ") => {
                let (column, rest) = text[2..].split_once(": {usage: ").expect("a column and its usage");
                let (usage, _) = rest.split_once(',').expect("and a description");
                query.usages.push((column.to_owned(), usage.to_owned()));
            }
            (_, Some(query)) => query.sql.extend([text, "\n"]),
            (_, None) => panic!("{line}"),
        }
    }
    queries
}

/// What postgres_exporter makes of the queries: lines of the Prometheus text format.
fn metrics(client: &mut Client) -> String {
    let mut lines = String::new();
    for Query { name, sql, usages } in queries() {
        let rows: Value = client
            .one::<String>(&format!("SELECT coalesce(json_agg(r), '[]')::text FROM ({sql}) AS r"), &[])
            .parse_json();
        for row in rows.as_array().expect("rows") {
            let labels: Vec<String> = usages
                .iter()
                .filter(|(_, usage)| usage == "LABEL")
                .map(|(column, _)| format!("{column}={}", row[column]))
                .chain(["server=\"test\"".to_owned()])
                .collect();
            let labels = labels.join(",");
            for (column, usage) in &usages {
                let known: BTreeSet<&str> = row.as_object().expect("a row").keys().map(String::as_str).collect();
                assert!(known.contains(column.as_str()), "{name}: no column {column}");
                match usage.as_str() {
                    "LABEL" => {}
                    "HISTOGRAM" => {
                        let bounds = row[column].as_array().expect("bounds");
                        let buckets = row[format!("{column}_bucket")].as_array().expect("buckets");
                        assert_eq!(bounds.len(), buckets.len(), "{name} {column}");
                        for (bound, calls) in bounds.iter().zip(buckets) {
                            lines += &format!("{name}_{column}_bucket{{{labels},le=\"{bound}\"}} {calls}\n");
                        }
                        let (sum, count) = (&row[format!("{column}_sum")], &row[format!("{column}_count")]);
                        lines += &format!("{name}_{column}_bucket{{{labels},le=\"+Inf\"}} {count}\n");
                        lines += &format!(
                            "{name}_{column}_sum{{{labels}}} {sum}\n{name}_{column}_count{{{labels}}} {count}\n"
                        );
                    }
                    "COUNTER" | "GAUGE" => {
                        assert!(row[column].is_number(), "{name} {column}: {}", row[column]);
                        lines += &format!("{name}_{column}{{{labels}}} {}\n", row[column]);
                    }
                    other => panic!("{name} {column}: {other}"),
                }
            }
        }
    }
    lines
}

trait ParseJson {
    fn parse_json(self) -> Value;
}

impl ParseJson for String {
    fn parse_json(self) -> Value {
        serde_json::from_str(&self).expect("JSON")
    }
}

/// The expressions of the dashboard, by panel.
fn panels() -> Vec<(String, String)> {
    let dashboard = file("dashboard.json").parse_json();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let expression = text(&target["expr"]).replace("$server", ".*").replace("$quota", "10000");
            expressions.push((text(&panel["title"]), expression));
        }
    }
    expressions
}

fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("envelope_pg_")).collect()
}

#[test]
fn each_series_of_the_alerts_and_of_the_dashboard_exists() {
    let fixture = Fixture::with_broker();
    let value = fixture.connect().encrypt("a text", &fixture.key_id);
    fixture.connect().decrypt(&value);
    let mut exporter = fixture.connect_as("exporter", &["pg_monitor"]);
    let found = metrics(&mut exporter);
    let found: BTreeSet<&str> = found.lines().filter_map(|line| line.split('{').next()).collect();
    let alerts = file("alerts.yaml");
    let alerts: Vec<&str> = alerts.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    for name in names_in(&alerts.join("\n")) {
        assert!(found.contains(name), "alerts.yaml: {name} is not among {found:?}");
    }
    for (panel, expression) in panels() {
        for name in names_in(&expression) {
            assert!(found.contains(name), "{panel}: {name} is not among {found:?}");
        }
    }
}

/// With a broker that hangs a scrape has all series, and soon.
#[test]
fn a_scrape_does_not_fail_nor_lose_series_when_the_broker_hangs() {
    let fixture = Fixture::with_broker();
    fixture.connect().encrypt("a text", &fixture.key_id);
    let mut exporter = fixture.connect_as("exporter", &["pg_monitor"]);
    let series = |metrics: &str| -> BTreeSet<String> {
        metrics.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
    };
    let before = series(&metrics(&mut exporter));
    assert!(before.iter().any(|series| series.starts_with("envelope_pg_kms_calls_total{source=\"broker\"")));
    // What it says goes to a file twice a second.
    let status = fixture.cluster.broker_file("status");
    wait_until("the broker has said what it does", || status.exists());
    thread::sleep(Duration::from_millis(1_100));
    let stopped = Stopped::stop(fixture.cluster.broker());
    let started = Instant::now();
    let hung = metrics(&mut exporter);
    let took = started.elapsed();
    println!("a scrape with a broker that hangs: {took:?}");
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    assert_eq!(series(&hung), before);
    assert!(hung.contains("envelope_pg_broker_responds{server=\"test\"} 0\n"), "{hung}");
    drop(stopped);
    wait_until("the broker answers again", || {
        metrics(&mut exporter).contains("envelope_pg_broker_responds{server=\"test\"} 1\n")
    });
    fixture.cluster.stop_broker();
    assert!(!status.exists(), "of one that has ended there is nothing to say");
}

/// A server, its exporter and a Prometheus.
struct Watched {
    fixture: Fixture,
    address: SocketAddr,
    _prometheus: Child,
}

/// Debian's program, in the path or where `scripts/setup.sh test` puts it.
fn program() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/prometheus/usr/bin/prometheus");
    [own, "/usr/bin/prometheus".into()].into_iter().find(|path| path.exists())
}

impl Watched {
    fn start(program: &Path, fixture: Fixture, directory: &Path) -> Self {
        let exporter = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let exporter_address = exporter.local_addr().expect("an address");
        let client = Arc::new(Mutex::new(fixture.connect_as("exporter", &["pg_monitor"])));
        thread::spawn(move || {
            for stream in exporter.incoming().flatten() {
                let _ = serve(stream, &client);
            }
        });
        fs::create_dir_all(directory).expect("a directory");
        fs::write(directory.join("alerts.yaml"), file("alerts.yaml")).expect("a file");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yaml]\n\
             scrape_configs: [{{job_name: test, static_configs: [{{targets: ['{exporter_address}']}}]}}]\n"
        );
        fs::write(directory.join("prometheus.yml"), config).expect("a file");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = fs::File::create(directory.join("log")).expect("a file");
        let mut command = process::bound(program, "KILL");
        command
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        let watched = Self { fixture, address, _prometheus: process::spawn(command) };
        wait_until("Prometheus has scraped twice", || {
            let samples = watched.query("count_over_time(envelope_pg_broker_running[1h])");
            samples.first().is_some_and(|sample| *sample >= 2.0)
        });
        watched
    }

    fn get(&self, path: &str) -> Value {
        // HTTP/1.0: the answer is what comes until the end.
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// The lines that an expression has drawn since a time.
    fn range(&self, expression: &str, since: SystemTime) -> Value {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let (start, end) = (seconds(since), seconds(SystemTime::now()));
        let encoded = encode(expression);
        self.get(&format!("/api/v1/query_range?query={encoded}&start={start}&end={end}&step=1"))["data"]["result"]
            .take()
    }

    /// The values that an expression has now; panics if it is none.
    fn query(&self, expression: &str) -> Vec<f64> {
        let encoded = encode(expression);
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().map(|sample| sample["value"][1].as_str().unwrap_or("NaN").parse().unwrap_or(f64::NAN)).collect()
    }

    /// The alerts and their states: inactive, pending, firing.
    fn alerts(&self) -> BTreeMap<String, String> {
        let answer = self.get("/api/v1/rules");
        let rules = answer["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for rule in &rules {
            assert_eq!(rule["lastError"], Value::Null, "{rule}");
        }
        rules.iter().map(|rule| (text(&rule["name"]), text(&rule["state"]))).collect()
    }

    /// Waits for an alert, while something happens again and again: one event is no rate.
    fn wait_for(&self, alert: &str, mut meanwhile: impl FnMut()) {
        wait_until(alert, || {
            meanwhile();
            self.alerts().get(alert).is_some_and(|state| state != "inactive")
        });
    }
}

fn encode(expression: &str) -> String {
    expression.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn serve(mut stream: TcpStream, client: &Mutex<Client>) -> std::io::Result<()> {
    let request = Message::read(&mut BufReader::new(stream.try_clone()?))?;
    let text = metrics(&mut client.lock().unwrap_or_else(PoisonError::into_inner));
    let mut response = Message::response(200, text.into_bytes());
    response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
    response.headers.push(("content-type".into(), "text/plain; version=0.0.4".into()));
    drop(request);
    stream.write_all(&response.to_bytes(false))
}

#[test]
fn alerts_and_panels_say_what_happens() {
    let Some(program) = program() else {
        println!("no Prometheus here, so alerts and panels are not evaluated: scripts/setup.sh test gets it");
        return;
    };
    let settings = Cluster::builder()
        .setting("envelope_pg.cache_ttl", "1s")
        .setting("envelope_pg.kms_max_attempts", "2")
        .setting("envelope_pg.kms_timeout", "4s");
    let (directory, started) = (testkit::scratch::directory().join("prometheus"), SystemTime::now());
    let watched = Watched::start(&program, Fixture::with_broker_and(settings), &directory);
    let fixture = &watched.fixture;
    // Rates need two scrapes between which something happens.
    let [throttled, denied, forged] = [(); 3].map(|()| fixture.new_key().arn);
    let mut client = fixture.connect();
    let value = client.encrypt("a text", &fixture.key_id);
    let denied_value = client.encrypt("a text", &denied);
    client.encrypt("a text", &throttled);
    thread::sleep(Duration::from_millis(2_500));
    for _ in 0..3 {
        client.run("SELECT env_cache_flush(true)");
        client.decrypt(&value);
        client.encrypt("a text", &throttled);
        thread::sleep(Duration::from_millis(1_100));
    }
    let quiet = watched.alerts();
    assert!(quiet.len() >= 7 && quiet.values().all(|state| state == "inactive"), "{quiet:?}");
    for (panel, expression) in panels() {
        let values = watched.query(&expression);
        println!("calm: {panel}: {values:?}");
        assert!(panel == "Denied for" || !values.is_empty(), "{panel} has no line: {expression}");
        assert!(panel != "Denied for" || values.is_empty(), "nobody is denied anything");
    }

    // More data keys than a session has room for.
    let mut small = fixture.connect();
    small.run("SET envelope_pg.cache_entries = 10");
    let many = "SELECT count(env_encrypt('a', $1, jsonb_build_object('n', n::text))) FROM generate_series(1, 30) AS n";
    let lines_of = |panel: &str| -> Vec<f64> {
        panels().iter().filter(|(name, _)| name == panel).flat_map(|(_, line)| watched.query(line)).collect()
    };
    wait_until("the dashboard shows what is dropped", || {
        small.one::<i64>(many, &[&fixture.key_id]);
        thread::sleep(Duration::from_millis(1_100));
        small.run("SELECT");
        let dropped = lines_of("Data keys dropped for want of memory, a second");
        // Of sessions, and of these needed again; the broker has room.
        dropped.len() == 4 && dropped[0] > 0.0 && dropped[1] > 0.0 && dropped[2..] == [0.0; 2]
    });
    let held = lines_of("Held, of capacity");
    assert!(held.len() == 2 && held[0] > 0.99 && held[1] > 0.0 && held[1] < 0.1, "{held:?}");
    let hits = lines_of("Hit ratio");
    assert!(hits.len() == 2 && hits.iter().all(|ratio| (0.0..=1.0).contains(ratio)), "{hits:?}");

    fixture.proxy.set(Rule::every(Fault::kms_error(400, "ThrottlingException")).for_key(&throttled));
    let new_context = "SELECT env_encrypt('a', $1, '{\"new\": \"context\"}')";
    let mut other = fixture.connect();
    watched.wait_for("EnvelopePgKmsThrottles", || drop(other.fail(new_context, &[&throttled]).with("53400")));
    fixture.proxy.set(Rule::every(Fault::kms_error(400, "AccessDeniedException")).for_key(&denied));
    client.run("SELECT env_cache_flush(true)");
    watched.wait_for("EnvelopePgKmsCallsFail", || drop(client.fail_to_decrypt(&denied_value).with("42501")));
    let denied_for = panels().into_iter().find(|(panel, _)| panel == "Denied for").expect("the panel").1;
    wait_until("the dashboard says since when", || !watched.query(&denied_for).is_empty());
    fixture.proxy.set(Rule::every(Fault::Nonsense(Nonsense::WrongKeyId)).for_key(&forged));
    // Once is enough, and of a key that had no calls before.
    fixture.connect().fail(new_context, &[&forged]).with("58000");
    watched.wait_for("EnvelopePgKmsAnswerNotTrusted", || ());
    assert!(!fixture.cluster.log_lines("cannot be trusted").is_empty());

    fixture.proxy.clear();
    wait_until("the value opens", || client.try_decrypt(&value).is_ok());
    fixture.proxy.set(Fault::Reset);
    thread::sleep(Duration::from_millis(1_200));
    watched.wait_for("EnvelopePgServesStale", || assert_eq!(fixture.connect().decrypt(&value), "a text", "stale"));
    fixture.proxy.clear();

    let stopped = Stopped::stop(fixture.cluster.broker());
    watched.wait_for("EnvelopePgBrokerHangs", || ());
    // Each is another session.
    let own = || drop(fixture.connect().decrypt(&value));
    watched.wait_for("EnvelopePgSessionsOnTheirOwn", own);
    drop(stopped);
    for (panel, expression) in panels() {
        println!("after trouble: {panel}: {:?}", watched.query(&expression));
    }
    // To be drawn and looked at: PANELS=FILE gets what each line of the dashboard was in the test.
    if let Some(path) = env::var_os("PANELS") {
        let lines = panels().into_iter().map(|(panel, line)| json!([panel, line, watched.range(&line, started)]));
        fs::write(path, Value::from_iter(lines).to_string()).expect("the file can be written");
    }
}
