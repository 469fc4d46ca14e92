#[leasehold::locked(name = "job", atmost = "5s")]
async fn job() {}

fn main() {}
