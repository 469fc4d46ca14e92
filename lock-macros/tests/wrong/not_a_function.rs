#[leasehold::locked(name = "job")]
struct Job;

fn main() {}
