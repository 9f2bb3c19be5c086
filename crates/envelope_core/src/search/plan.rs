//! How many bits a token of few distinct values has, and what that costs: the rule of AWS beacons.

use super::SearchError;

/// Below this number of distinct values nothing that an index can use hides them.
pub const LEAST_DISTINCT_VALUES: u64 = 16;

/// What an equality index on tokens would do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The fewest and the most bits by the rule: sqrt(X) <= 2^n <= X / 2 of X distinct values. `None`: no index.
    pub bits: Option<(u8, u8)>,
    /// Bits of this plan; `None`: a full token.
    pub chosen_bits: Option<u8>,
    /// Distinct tokens to expect.
    pub tokens: f64,
    /// Rows that a token hits, on average over the tokens.
    pub rows_per_token: f64,
    /// Those of them that the search was not for, which a recheck by decryption drops.
    pub false_hits: f64,
}

impl Plan {
    /// A plan for a column. Without bits, the most by the rule.
    ///
    /// # Errors
    /// [`SearchError::PlanOfNothing`].
    pub fn new(distinct_values: u64, rows: u64, bits: Option<u8>) -> Result<Self, SearchError> {
        if distinct_values == 0 || rows < distinct_values {
            return Err(SearchError::PlanOfNothing);
        }
        let rule = (distinct_values >= LEAST_DISTINCT_VALUES).then(|| rule(distinct_values));
        let chosen_bits = bits.or(rule.map(|(_, most)| most));
        let (distinct, rows) = (distinct_values as f64, rows as f64);
        // Distinct tokens of X values thrown into 2^n: 2^n (1 - (1 - 2^-n)^X).
        let tokens = match chosen_bits {
            None => distinct,
            Some(bits) => {
                let space = f64::from(bits).exp2();
                -space * (distinct * (-1.0 / space).ln_1p()).exp_m1()
            }
        };
        let rows_per_token = rows / tokens;
        Ok(Self { bits: rule, chosen_bits, tokens, rows_per_token, false_hits: rows_per_token - rows / distinct })
    }
}

/// sqrt(X) <= 2^n <= X / 2.
fn rule(distinct_values: u64) -> (u8, u8) {
    let ceil_log2 = u64::BITS - (distinct_values - 1).leading_zeros();
    (ceil_log2.div_ceil(2) as u8, (distinct_values.ilog2() - 1) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_within_the_rule() {
        for distinct in (16..5_000).chain([1 << 20, (1 << 20) + 1, 1_000_000_000]) {
            let (least, most) = Plan::new(distinct, distinct, None).unwrap().bits.unwrap();
            let x = distinct as f64;
            assert!(2_f64.powi(least.into()) >= x.sqrt() && 2_f64.powi(i32::from(least) - 1) < x.sqrt(), "{distinct}");
            assert!(2_f64.powi(most.into()) <= x / 2.0 && 2_f64.powi(i32::from(most) + 1) > x / 2.0, "{distinct}");
            assert!(least <= most, "{distinct}");
        }
    }

    #[test]
    fn says_no_to_few_values() {
        assert_eq!(Plan::new(15, 1_000, None).unwrap().bits, None);
        assert_eq!(Plan::new(2, 1_000, Some(1)).unwrap().bits, None);
        assert!(Plan::new(16, 1_000, None).unwrap().bits.is_some());
        assert_eq!(Plan::new(0, 0, None), Err(SearchError::PlanOfNothing));
        assert_eq!(Plan::new(5, 4, None), Err(SearchError::PlanOfNothing));
    }

    #[test]
    fn hits_add_up() {
        let plan = Plan::new(1_000, 1_000_000, Some(8)).unwrap();
        assert!((250.0..256.0).contains(&plan.tokens), "{plan:?}");
        assert!((plan.rows_per_token - plan.false_hits - 1_000.0).abs() < 1e-6);
    }
}
