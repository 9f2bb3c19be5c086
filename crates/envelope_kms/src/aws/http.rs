//! The HTTP client for AWS: whom it trusts, how large an answer may be, and when connections close.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_config::profile;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::os_shim_internal::{Env, Fs};
use http_body::{Body, Frame, SizeHint};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Answers of KMS have a few kilobytes, those of the services that give credentials as well.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// A connection that nobody uses for so long is closed, when all are looked at the next time, once in that time. KMS closes them after about a minute.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Connections to one host that are kept, after a burst of calls.
const MAX_IDLE: usize = 8;

/// More bytes than KMS sends.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {MAX_ANSWER_BYTES} bytes")]
pub(super) struct TooLarge;

/// A client. `profile` is the profile of the settings, if they name one.
///
/// # Errors
/// Why the file of `AWS_CA_BUNDLE` or `ca_bundle` cannot be used.
pub(super) async fn client(profile: Option<&str>) -> Result<SharedHttpClient, String> {
    let trust_store = match ca_bundle(profile).await {
        Some(path) => Some(read_ca_bundle(&path)?),
        None => None,
    };
    let tls_context = trust_store
        .map(|store| TlsContext::builder().with_trust_store(store).build())
        .transpose()
        .map_err(|error| error.to_string())?;
    let client = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder.set_proxy_config(Some(ProxyConfig::from_env()));
        builder.set_pool_idle_timeout(Some(Some(IDLE_TIME)));
        builder.set_pool_max_idle_per_host(Some(MAX_IDLE));
        if let Some(context) = &tls_context {
            builder.set_tls_context(context.clone());
        }
        builder.build()
    });
    Ok(SharedHttpClient::new(BoundedClient(client)))
}

/// The file with the certificates to trust in place of the system's: `AWS_CA_BUNDLE`, or `ca_bundle` of the profile.
async fn ca_bundle(profile: Option<&str>) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let profile = profile.map(|profile| profile.to_owned().into());
    // Files that cannot be read are reported where credentials are looked for.
    let profiles = profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), profile).await.ok()?;
    profiles.get("ca_bundle").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn read_ca_bundle(path: &Path) -> Result<TrustStore, String> {
    let problem =
        |problem: &dyn fmt::Display| format!("the CA bundle \"{}\" cannot be used: {problem}", path.display());
    let pem = std::fs::read(path).map_err(|error| problem(&error))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| problem(&error))?;
        store.add(certificate).map_err(|error| problem(&error))?;
    }
    if store.is_empty() {
        return Err(problem(&"it has no certificate"));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// Hands out [`BoundedConnector`]s.
#[derive(Debug)]
struct BoundedClient(SharedHttpClient);

impl HttpClient for BoundedClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(BoundedConnector(self.0.http_connector(settings, components)))
    }
}

/// Ends an answer that is too large with an error, before it is in memory.
#[derive(Debug)]
struct BoundedConnector(SharedHttpConnector);

impl HttpConnector for BoundedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let call = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let response = call.await?;
            Ok(response.map(|body| SdkBody::from_body_1_x(BoundedBody { body, left: MAX_ANSWER_BYTES })))
        })
    }
}

/// A body that ends with [`TooLarge`].
struct BoundedBody {
    body: SdkBody,
    left: u64,
}

impl Body for BoundedBody {
    type Data = bytes::Bytes;
    type Error = aws_smithy_types::body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if Body::size_hint(&self.body).lower() > self.left {
            return Poll::Ready(Some(Err(TooLarge.into())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes =
            frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(TooLarge.into()))),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
