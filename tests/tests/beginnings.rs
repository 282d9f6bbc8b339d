//! Inputs that have lost their beginning, on a real Kafka; `make soak-starts` does more of it.

use kaspr_tests::beginnings::survive;
use kaspr_tests::kafka::Broker;

#[test]
fn starts_and_rebalances_outlive_the_beginning_of_their_input() {
    let found = survive(&Broker::start(), 8, 6);
    assert!(found.is_clean(), "{found}");
}
