#[leasehold::locked(name = "job", locks = "here")]
async fn job() {}

fn main() {}
