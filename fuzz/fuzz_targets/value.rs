//! The value format: `write(parse(x)) == x`, a head needs no more bytes than it says, and there is one encoding of everything.

#![no_main]

use envelope_core::context::EncryptionContext;
use envelope_core::format::{Envelope, Head, HeadError, Preamble};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let head = head_from_prefixes(value);
    let Ok(envelope) = Envelope::parse(value) else {
        assert!(head.is_none());
        return;
    };
    let head = head.expect("what is a value has a head");
    assert_eq!(head.as_bytes(), envelope.head.as_bytes());
    assert_eq!((head.value_bytes(), head.ciphertext_bytes), (value.len(), envelope.ciphertext.len()));

    let preamble = Preamble::of(&head);
    assert_eq!(preamble.dek_identity(), head.dek_identity());
    let mut written = vec![0x55; preamble.value_bytes(envelope.ciphertext.len())];
    let parts = preamble.write(head.value_type, head.flags, head.nonce, &mut written);
    assert_eq!(parts.header, head.header());
    parts.ciphertext.copy_from_slice(envelope.ciphertext);
    parts.tag.copy_from_slice(envelope.tag);
    assert_eq!(written, value);

    let context = head.encryption_context();
    if let Ok(context) = &context {
        assert_eq!(EncryptionContext::from_json(&context.to_json()).as_ref(), Ok(context));
        assert_eq!(context.for_kms().len(), context.pairs().count() + 1);
        assert!(!context.for_kms_encoded().is_empty());
    }
    if let (Ok(context), Ok(wrapped_keys)) = (context, head.wrapped_keys()) {
        let again = Preamble::new(&head.commitment(), &context, &wrapped_keys).expect("they fit into this value");
        // Those of unknown providers are left out.
        if again.dek_identity().len() == head.dek_identity().len() {
            assert_eq!(again.dek_identity(), head.dek_identity());
        }
    }
});

/// Parses the head of a value from as few bytes as it asks for.
fn head_from_prefixes(value: &[u8]) -> Option<Head<'_>> {
    let mut bytes = 0;
    loop {
        match Head::parse(&value[..bytes], value.len()) {
            Ok(head) => return Some(head),
            Err(HeadError::Invalid(_)) => return None,
            Err(HeadError::NeedBytes(needed)) => {
                assert!((bytes + 1..=value.len()).contains(&needed));
                bytes = needed;
            }
        }
    }
}
