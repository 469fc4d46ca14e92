#[leasehold::locked]
async fn job() {}

fn main() {}
