//! Conditional orders: how they are identified, and how a contract signs what comes of them.

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_sol_types::{SolCall, SolValue};

use super::{
    abi::{ConditionalOrderParams, OrderData, PayloadStruct, SafeSigner::safeSignatureCall},
    order::{Domain, TYPE_HASH},
};

/// The id of a conditional order: `ComposableCoW.hash(params)`.
///
/// It is the hash of `abi.encode(params)`, which for a dynamic struct starts with an offset.
/// The same parameters have the same id for every owner.
///
/// ```
/// use shepherd_sdk::cow::{abi::ConditionalOrderParams, conditional};
///
/// let params = ConditionalOrderParams::default();
/// let salted = ConditionalOrderParams { salt: [1; 32].into(), ..params.clone() };
/// assert_ne!(conditional::id(&params), conditional::id(&salted));
/// ```
pub fn id(params: &ConditionalOrderParams) -> B256 {
    keccak256(params.abi_encode())
}

/// The EIP-1271 signature of a Safe whose fallback handler is `ExtensibleFallbackHandler`.
///
/// `getTradeableOrderWithSignature` answers the same bytes; this is for tests and for those who
/// have the order from elsewhere.
///
/// ```
/// use shepherd_sdk::cow::{abi::*, conditional::safe_signature, order::Domain};
///
/// let payload = PayloadStruct::default();
/// let signature = safe_signature(Domain::of_chain(1), &OrderData::default(), &payload);
/// assert_eq!(signature[..4], [0x5f, 0xd7, 0xe9, 0x7d]);
/// ```
pub fn safe_signature(domain: Domain, order: &OrderData, payload: &PayloadStruct) -> Bytes {
    let call = safeSignatureCall {
        domainSeparator: domain.separator(),
        typeHash: TYPE_HASH,
        encodeData: order.abi_encode().into(),
        payload: payload.abi_encode().into(),
    };
    call.abi_encode().into()
}

/// The EIP-1271 signature of an owner that forwards to `ComposableCoW` (`ERC1271Forwarder`) and
/// is no Safe: `abi.encode(order, payload)`.
pub fn forwarder_signature(order: &OrderData, payload: &PayloadStruct) -> Bytes {
    (order.clone(), payload.clone()).abi_encode_params().into()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, U256, hex};

    use super::*;
    use crate::cow::{
        abi::ComposableCow::{
            getTradeableOrderWithSignatureCall, getTradeableOrderWithSignatureReturn,
        },
        order::tests::golden,
    };

    fn params() -> ConditionalOrderParams {
        ConditionalOrderParams {
            handler: Address::repeat_byte(0x11),
            salt: B256::repeat_byte(0x22),
            staticInput: hex!("010203").into(),
        }
    }

    fn word(number: u64) -> [u8; 32] {
        U256::from(number).to_be_bytes()
    }

    #[test]
    fn the_id_hashes_the_encoding_with_its_leading_offset() {
        let mut static_input = [0; 32];
        static_input[..3].copy_from_slice(&[1, 2, 3]);
        let encoded = [
            word(0x20),
            Address::repeat_byte(0x11).into_word().0,
            [0x22; 32],
            word(0x60),
            word(3),
            static_input,
        ];
        assert_eq!(id(&params()), keccak256(encoded.concat()));
    }

    #[test]
    fn a_safe_signs_by_the_call_its_fallback_handler_expects() {
        let order = OrderData::from(golden());
        let payload = PayloadStruct {
            proof: vec![B256::repeat_byte(3)],
            params: params(),
            offchainInput: Bytes::new(),
        };
        let signature = safe_signature(Domain::of_chain(11_155_111), &order, &payload);
        let call = safeSignatureCall::abi_decode_validate(&signature).unwrap();
        assert_eq!(call.domainSeparator, Domain::of_chain(11_155_111).separator());
        assert_eq!(call.typeHash, TYPE_HASH);
        assert_eq!(OrderData::abi_decode_validate(&call.encodeData).unwrap(), order);
        assert_eq!(PayloadStruct::abi_decode_validate(&call.payload).unwrap(), payload);
        // The handler hashes type hash and order itself, and must come to the digest we sign.
        let struct_hash = keccak256([&call.typeHash[..], &call.encodeData].concat());
        let digest = [&[0x19, 0x01], &call.domainSeparator[..], &struct_hash[..]].concat();
        assert_eq!(keccak256(digest), golden().digest(Domain::of_chain(11_155_111)));
    }

    #[test]
    fn a_forwarder_signs_with_the_order_and_its_payload() {
        let order = OrderData::from(golden());
        let payload = PayloadStruct { params: params(), ..PayloadStruct::default() };
        let signature = forwarder_signature(&order, &payload);
        assert_eq!(signature[..384], order.abi_encode());
        assert_eq!(signature[384..416], word(384 + 32));
        let decoded = <(OrderData, PayloadStruct)>::abi_decode_params_validate(&signature);
        assert_eq!(decoded.unwrap(), (order, payload));
    }

    #[test]
    fn the_contracts_answer_is_the_order_and_the_signature_behind_it() {
        let order = OrderData::from(golden());
        let signature = hex!("5fd7e97d01");
        let mut answer = order.abi_encode();
        answer.extend(word(0x1a0));
        answer.extend(word(5));
        answer.extend(signature);
        answer.extend([0; 27]);
        let decoded = getTradeableOrderWithSignatureCall::abi_decode_returns(&answer).unwrap();
        let getTradeableOrderWithSignatureReturn { order: found, signature: bytes } = decoded;
        assert_eq!((found, bytes[..].to_vec()), (order, signature.to_vec()));
    }
}
