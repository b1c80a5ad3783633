//! An order in which each comes after what it depends on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The order of the indices of `dependencies` in which each comes after those that it lists, and otherwise as
/// early as its index allows.
///
/// # Errors
/// When there is none: a loop, in which each depends on the next and the last on the first, which has the
/// least index.
pub(super) fn topological_order(dependencies: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut dependents = vec![Vec::new(); dependencies.len()];
    let mut waiting_for: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    for (node, needed) in dependencies.iter().enumerate() {
        for dependency in needed {
            dependents[*dependency].push(node);
        }
    }
    let mut ready: BinaryHeap<_> =
        (0..dependencies.len()).filter(|node| waiting_for[*node] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(dependencies.len());
    while let Some(Reverse(node)) = ready.pop() {
        order.push(node);
        for dependent in &dependents[node] {
            waiting_for[*dependent] -= 1;
            if waiting_for[*dependent] == 0 {
                ready.push(Reverse(*dependent));
            }
        }
    }
    match waiting_for.iter().position(|waiting| *waiting > 0) {
        None => Ok(order),
        Some(start) => Err(find_loop(dependencies, &waiting_for, start)),
    }
}

/// A loop that can be reached from `start`. What still waits depends on something that waits too, so walking
/// along such dependencies must come to a place where it has been before.
fn find_loop(dependencies: &[Vec<usize>], waiting_for: &[usize], start: usize) -> Vec<usize> {
    let mut path = Vec::new();
    let mut place = vec![None; dependencies.len()];
    let mut node = start;
    loop {
        if let Some(first) = place[node] {
            let mut found = path.split_off(first);
            let least = found.iter().enumerate().min_by_key(|(_, node)| **node);
            let least = least.map_or(0, |(index, _)| index);
            found.rotate_left(least);
            return found;
        }
        place[node] = Some(path.len());
        path.push(node);
        match dependencies[node].iter().find(|dependency| waiting_for[**dependency] > 0) {
            Some(next) => node = *next,
            None => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_then_the_index_decides() {
        assert_eq!(topological_order(&[]), Ok(vec![]));
        assert_eq!(topological_order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(topological_order(&[vec![2], vec![], vec![], vec![0, 0]]), Ok(vec![1, 2, 0, 3]));
    }

    #[test]
    fn loops_begin_with_their_least_index() {
        assert_eq!(topological_order(&[vec![0]]), Err(vec![0]));
        assert_eq!(topological_order(&[vec![3], vec![], vec![1, 3], vec![1, 2]]), Err(vec![2, 3]));
        assert_eq!(topological_order(&[vec![2], vec![0], vec![1]]), Err(vec![0, 2, 1]));
    }
}
