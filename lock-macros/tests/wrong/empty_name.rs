#[leasehold::locked(name = "")]
async fn job() {}

fn main() {}
