//! Interleaved repetitions and their medians. What else the machine does then hits all cases alike, and a ratio of medians
//! says more than the times.

/// What is run for a case, and how many rows that makes.
pub struct Case<'a> {
    pub rows: usize,
    /// Returns the cost of one run.
    pub run: Box<dyn FnMut() -> f64 + 'a>,
}

/// Runs all cases in turn, `repetitions` times after one that does not count, and returns the median cost of each per row.
pub fn interleaved(repetitions: usize, cases: Vec<Case<'_>>) -> Vec<f64> {
    rounds(repetitions, cases).iter_mut().map(|costs| median(costs)).collect()
}

/// As [`interleaved`], and returns all costs of each case: those of one round were measured one after the other.
pub fn rounds(repetitions: usize, mut cases: Vec<Case<'_>>) -> Vec<Vec<f64>> {
    let mut costs = vec![Vec::new(); cases.len()];
    for repetition in 0..=repetitions {
        for (case, costs) in cases.iter_mut().zip(&mut costs) {
            let cost = (case.run)() / case.rows as f64;
            if repetition > 0 {
                costs.push(cost);
            }
        }
    }
    costs
}

/// The median; the mean of the two in the middle of an even number.
pub fn median(costs: &mut [f64]) -> f64 {
    costs.sort_by(f64::total_cmp);
    let middle = costs.len() / 2;
    if costs.len().is_multiple_of(2) { (costs[middle - 1] + costs[middle]) / 2.0 } else { costs[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn the_first_round_does_not_count() {
        let mut cost = 100.0;
        let run = Box::new(move || std::mem::replace(&mut cost, 8.0));
        assert_eq!(interleaved(3, vec![Case { rows: 4, run }]), [2.0]);
    }
}
