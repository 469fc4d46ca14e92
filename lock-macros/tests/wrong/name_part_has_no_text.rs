struct Order;

#[leasehold::locked(name = "order-{order}")]
async fn job(order: Order) {
    let _ = order;
}

fn main() {}
