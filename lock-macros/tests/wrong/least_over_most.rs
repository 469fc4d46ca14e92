#[leasehold::locked(name = "job", at_most_for = "5s", at_least_for = "1m")]
async fn job() {}

fn main() {}
