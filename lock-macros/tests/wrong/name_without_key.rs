#[leasehold::locked("job")]
async fn job() {}

fn main() {}
