//! What a module can ask to be done. Nothing is done here: an effect is kept, and becomes real
//! with the step.

use std::collections::BTreeSet;

use alloy_primitives::{Bytes, U256};
use cowprotocol::{BuyTokenDestination, OrderData, OrderKind, SellTokenSource};
use shepherd_log::{Deliver, EffectKey};
use wasmtime::{Result, component::Linker};

use crate::{
    bindings::shepherd::module::effects as wit_effects,
    capability::Capability,
    imports::{Caller, Guest, address, charge, from_words},
    limits::{BYTE_FUEL, CALL_FUEL, EFFECT_FUEL, WEBHOOK_EXPIRES_SECONDS},
    order::{Posting, Signing},
    webhook::{self, Webhook},
};

/// Links those functions of the interface that are granted.
pub(crate) fn link(linker: &mut Linker<Guest>, granted: &BTreeSet<Capability>) -> Result<()> {
    let mut effects = linker.instance(&Capability::PlaceOrder.import())?;
    if granted.contains(&Capability::PlaceOrder) {
        type Call = (wit_effects::OrderPosting,);
        effects.func_wrap("place-order", |caller: Caller<'_>, (posting,): Call| {
            place_order(caller, posting).map(|uid| (uid,))
        })?;
    }
    if granted.contains(&Capability::Webhook) {
        type Call = (wit_effects::WebhookPosting,);
        effects.func_wrap("webhook", |caller: Caller<'_>, (posting,): Call| {
            call_webhook(caller, posting).map(|key| (key,))
        })?;
    }
    Ok(())
}

fn place_order(mut caller: Caller<'_>, posting: wit_effects::OrderPosting) -> Result<Vec<u8>> {
    let terms = caller.data_mut().record("effects.place-order")?.terms.clone();
    let deliver = posting.deliver.map_or(terms.deliver, Deliver::from);
    let posting = Posting::from(posting);
    charge(&mut caller, CALL_FUEL + EFFECT_FUEL + BYTE_FUEL * posting.bytes() as u64)?;
    let guest = caller.data_mut();
    let effect = posting.effect(&terms.domain, deliver).map_err(|fault| guest.stop(fault))?;
    let EffectKey::Order(uid) = effect.key else { unreachable!("an order was placed") };
    guest.emit(effect).map_err(|output| guest.stop(output))?;
    Ok(uid.to_vec())
}

fn call_webhook(mut caller: Caller<'_>, posting: wit_effects::WebhookPosting) -> Result<String> {
    caller.data_mut().record("effects.webhook")?;
    let wit_effects::WebhookPosting { destination, key, body, deliver, expires } = posting;
    let bytes = destination.len() + key.as_ref().map_or(0, String::len) + body.len();
    charge(&mut caller, CALL_FUEL + EFFECT_FUEL + BYTE_FUEL * bytes as u64)?;
    let guest = caller.data_mut();
    let position = u32::try_from(guest.effects.len()).expect("bounded by EFFECTS_MAX");
    let record = guest.record("effects.webhook")?;
    let terms = record.terms.clone();
    let webhook = Webhook {
        destination,
        key: key.unwrap_or_else(|| webhook::derived_key(&terms.lane, &record.occasion, position)),
        body,
        deliver: deliver.map_or(terms.deliver, Deliver::from),
        expires: expires.unwrap_or(record.timestamp.saturating_add(WEBHOOK_EXPIRES_SECONDS)),
    };
    let key = webhook.key.clone();
    let effect = webhook.effect(&terms.webhooks).map_err(|fault| guest.stop(fault))?;
    guest.emit(effect).map_err(|output| guest.stop(output))?;
    Ok(key)
}

impl From<wit_effects::OrderPosting> for Posting {
    fn from(posting: wit_effects::OrderPosting) -> Posting {
        let order = posting.order;
        let amount = |hash| U256::from_be_bytes(from_words(hash).0);
        Posting {
            order: OrderData {
                sell_token: address(order.sell_token),
                buy_token: address(order.buy_token),
                receiver: Some(address(order.receiver)),
                sell_amount: amount(order.sell_amount),
                buy_amount: amount(order.buy_amount),
                valid_to: order.valid_to,
                app_data: from_words(order.app_data),
                fee_amount: amount(order.fee_amount),
                kind: match order.kind {
                    wit_effects::OrderKind::Sell => OrderKind::Sell,
                    wit_effects::OrderKind::Buy => OrderKind::Buy,
                },
                partially_fillable: order.partially_fillable,
                sell_token_balance: match order.sell_token_source {
                    wit_effects::SellTokenSource::Erc20 => SellTokenSource::Erc20,
                    wit_effects::SellTokenSource::External => SellTokenSource::External,
                    wit_effects::SellTokenSource::Internal => SellTokenSource::Internal,
                },
                buy_token_balance: match order.buy_token_destination {
                    wit_effects::BuyTokenDestination::Erc20 => BuyTokenDestination::Erc20,
                    wit_effects::BuyTokenDestination::Internal => BuyTokenDestination::Internal,
                },
            },
            owner: address(posting.owner),
            signing: match posting.signing {
                wit_effects::Signing::Eip1271(signature) => {
                    Signing::Eip1271(Bytes::from(signature))
                }
                wit_effects::Signing::PreSign => Signing::PreSign,
            },
            document: posting.app_data_document,
            quote_id: posting.quote_id,
        }
    }
}

impl From<wit_effects::Deliver> for Deliver {
    fn from(deliver: wit_effects::Deliver) -> Deliver {
        match deliver {
            wit_effects::Deliver::Instant => Deliver::Instant,
            wit_effects::Deliver::Confirmations(blocks) => Deliver::Confirmations(blocks),
            wit_effects::Deliver::Finalized => Deliver::Finalized,
        }
    }
}
