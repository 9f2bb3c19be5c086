//! A failed call to a key provider, as a PostgreSQL error.

use envelope_core::request::{KmsError, KmsErrorKind};

/// SQLSTATE and HINT of a failed call to a key provider.
pub fn sqlstate_and_hint(error: &KmsError) -> (&'static str, Option<&'static str>) {
    match &error.kind {
        KmsErrorKind::Unreachable(reason) if reason.contains("certificate") || reason.contains("CA bundle") => (
            "58000",
            Some(
                "Check which certificates the PostgreSQL server trusts: AWS_CA_BUNDLE, ca_bundle of the profile, SSL_CERT_FILE, or the system's.",
            ),
        ),
        KmsErrorKind::Unreachable(_) | KmsErrorKind::TimedOut => (
            "58000",
            Some(
                "Check the host and the region in DETAIL, the network, envelope_pg.kms_endpoint_url and envelope_pg.kms_timeout; then try again.",
            ),
        ),
        KmsErrorKind::KeyUnavailable(_) => (
            "58000",
            Some(
                "Check the key's custom key store in AWS KMS: its connection state, the CloudHSM cluster or the external key store proxy; then try again.",
            ),
        ),
        KmsErrorKind::NoCredentials(reason) => ("58000", Some(credentials_hint(error, reason))),
        KmsErrorKind::Throttled => ("53400", Some("Try again later, or have the KMS request quota raised.")),
        KmsErrorKind::HeldBack => (
            "53400",
            Some(
                "Raise envelope_pg.kms_max_calls_per_second, if the quota of the AWS account allows it, or try again later.",
            ),
        ),
        KmsErrorKind::AccessDenied => {
            ("42501", Some("Allow it in the key policy or in the IAM policy of the PostgreSQL server."))
        }
        KmsErrorKind::KeyUnusable => ("55000", Some("Enable the key, or cancel its deletion, in AWS KMS.")),
        KmsErrorKind::NotFound if error.key_id.starts_with("local:") => {
            ("42704", Some("env_local_create_key(name) makes a local key."))
        }
        KmsErrorKind::NotFound => ("42704", Some("Check the key id, the account and the region.")),
        KmsErrorKind::WrappedKeyRejected => {
            ("22000", Some("It was changed, or the value was put together from parts of others."))
        }
        KmsErrorKind::InvalidRequest(_) => ("22023", Some(invalid_request_hint(error))),
        KmsErrorKind::UnexpectedAnswer(_) => (
            "58000",
            Some(
                "Treat it as an attack until shown otherwise: who answers at envelope_pg.kms_endpoint_url, or at the host in DETAIL?",
            ),
        ),
        KmsErrorKind::NoRegion => (
            "55000",
            Some(
                "As a superuser: LOAD 'envelope_pg'; ALTER SYSTEM SET envelope_pg.kms_region = 'us-east-1'; SELECT pg_reload_conf(). Or name the key by ARN.",
            ),
        ),
        KmsErrorKind::LocalProviderOff => (
            "55000",
            Some(
                "As a superuser: LOAD 'envelope_pg'; ALTER SYSTEM SET envelope_pg.local_keyring = 'keyring.json'; SELECT pg_reload_conf(); then env_local_create_key(name). Production keys belong in AWS KMS.",
            ),
        ),
        KmsErrorKind::Keyring(reason) => ("F0000", Some(keyring_hint(reason))),
        // The session makes an error of its own of it.
        KmsErrorKind::NoCallLeft => ("54000", None),
        KmsErrorKind::LocalKeyExists => ("42710", Some("env_local_rotate_key(name) gives a key a new version.")),
    }
}

fn keyring_hint(reason: &str) -> &'static str {
    if reason.contains("directory") && reason.contains("does not exist") {
        "Make the directory, owned by the user of the PostgreSQL server, or set envelope_pg.local_keyring to a file in one that is there."
    } else if reason.ends_with("does not exist") {
        "env_local_create_key(name) makes it, with its first key."
    } else {
        "It must be a file of the server's user with mode 0600, made by env_local_create_key."
    }
}

fn credentials_hint(error: &KmsError, reason: &str) -> &'static str {
    match error.metadata.code {
        _ if reason.contains("clock") => "Set the clock of the PostgreSQL server, and see why it was wrong.",
        Some(_) => {
            "Renew the credentials of the PostgreSQL server at their source; env_kms_reconnect() has all processes read them anew."
        }
        None => {
            "Give the PostgreSQL server AWS credentials: environment, profile, web identity, container or instance; DETAIL has what the source of these says."
        }
    }
}

fn invalid_request_hint(error: &KmsError) -> &'static str {
    match error.metadata.code.as_deref() {
        Some("InvalidKeyUsageException" | "UnsupportedOperationException") => {
            "The key must be a symmetric encryption key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT)."
        }
        Some("InvalidArnException" | "InvalidAliasNameException") => {
            "Check the key id: KMS takes it for no name of a key."
        }
        Some("ValidationException" | "ValidationError") => {
            "Check the key id, and the size of the encryption context: KMS takes 8 KiB."
        }
        None => "Use another key, or env_reencrypt.",
        Some(_) => {
            "Look the KMS error code up in the AWS KMS API Reference; is it AWS KMS that answers at the host in DETAIL?"
        }
    }
}

/// The facts: what the service said, about which key, how long it took.
pub fn detail(error: &KmsError) -> String {
    let reason = match &error.kind {
        KmsErrorKind::Unreachable(reason)
        | KmsErrorKind::KeyUnavailable(reason)
        | KmsErrorKind::NoCredentials(reason)
        | KmsErrorKind::InvalidRequest(reason)
        | KmsErrorKind::Keyring(reason) => Some(reason.as_str()),
        KmsErrorKind::UnexpectedAnswer(reason) => Some(reason.as_ref()),
        _ => error.metadata.message.as_deref(),
    };
    let mut facts = vec![format!("{} with key {}", error.operation, error.key_id)];
    facts.extend(reason.map(|reason| reason.trim_end_matches('.').to_owned()));
    facts.extend(error.metadata.code.as_ref().map(|code| format!("KMS error code {code}")));
    facts.extend(error.metadata.request_id.as_ref().map(|id| format!("request id {id}")));
    facts.extend(error.endpoint.host.as_ref().map(|host| format!("host {host}")));
    facts.extend(error.endpoint.region.as_ref().map(|region| format!("region {region}")));
    facts.extend(match error.attempts {
        _ if error.breaker_was_open => Some("not tried again so soon (circuit breaker)".to_owned()),
        Some(1) => Some("1 attempt".to_owned()),
        attempts => attempts.map(|attempts| format!("{attempts} attempts")),
    });
    facts.extend(error.elapsed.map(|elapsed| format!("after {} ms", elapsed.as_millis())));
    facts.join("; ") + "."
}
