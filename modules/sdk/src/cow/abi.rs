//! The contracts' functions, events, errors and structs, as Solidity has them.
//!
//! Names are the contracts' own, so that they can be looked up there. A contract is a module:
//!
//! ```
//! use shepherd_sdk::{
//!     B256,
//!     abi::{Event, event},
//!     alloy_sol_types::{SolCall, SolEvent},
//!     cow::abi::{ComposableCow, ConditionalOrderParams},
//! };
//!
//! // A call, ready to be sent.
//! let call = ComposableCow::removeCall { singleOrderHash: B256::repeat_byte(7) };
//! assert_eq!(call.abi_encode()[..4], [0x95, 0xbc, 0x26, 0x73]);
//!
//! // An event, out of a log.
//! let created = ComposableCow::ConditionalOrderCreated {
//!     owner: Default::default(),
//!     params: ConditionalOrderParams::default(),
//! };
//! let log = shepherd_sdk::Log {
//!     topics: created.encode_log_data().topics().try_into().unwrap(),
//!     data: created.encode_data(),
//!     ..Default::default()
//! };
//! assert_eq!(event(&log), Event::Is(created));
//! ```

#![allow(missing_docs, reason = "the Solidity is the documentation, and fields cannot carry any")]

use alloy_sol_types::sol;

sol! {
    #![sol(all_derives)]

    /// `IConditionalOrder.ConditionalOrderParams`: which handler, told apart by the salt, with
    /// which input.
    struct ConditionalOrderParams { address handler; bytes32 salt; bytes staticInput; }

    /// `GPv2Order.Data`: twelve static words.
    struct OrderData {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        uint32 validTo;
        bytes32 appData;
        uint256 feeAmount;
        bytes32 kind;
        bool partiallyFillable;
        bytes32 sellTokenBalance;
        bytes32 buyTokenBalance;
    }

    /// `ComposableCoW.PayloadStruct`: how a conditional order proves to be authorised.
    struct PayloadStruct { bytes32[] proof; ConditionalOrderParams params; bytes offchainInput; }

    /// `ComposableCoW.Proof`: where the leaves of a merkle root are published.
    struct Proof { uint256 location; bytes data; }

    /// `TWAPOrder.Data`: the static input of the TWAP handler.
    struct TwapData {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 partSellAmount;
        uint256 minPartLimit;
        uint256 t0;
        uint256 n;
        uint256 t;
        uint256 span;
        bytes32 appData;
    }

    /// `StopLoss.Data`: the static input of the stop-loss handler.
    struct StopLossData {
        address sellToken;
        address buyToken;
        uint256 sellAmount;
        uint256 buyAmount;
        bytes32 appData;
        address receiver;
        bool isSellOrder;
        bool isPartiallyFillable;
        uint32 validTo;
        address sellTokenPriceOracle;
        address buyTokenPriceOracle;
        int256 strike;
        uint256 maxTimeSinceLastOracleUpdate;
    }

    /// `EthFlowOrder.Data`: an order that sells the native token.
    struct EthFlowData {
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        bytes32 appData;
        uint256 feeAmount;
        uint32 validTo;
        bool partiallyFillable;
        int64 quoteId;
    }

    /// `ICoWSwapOnchainOrders.OnchainSigningScheme`.
    enum OnchainSigningScheme { Eip1271, PreSign }

    /// `ICoWSwapOnchainOrders.OnchainSignature`.
    struct OnchainSignature { OnchainSigningScheme scheme; bytes data; }

    interface ComposableCow {
        event ConditionalOrderCreated(address indexed owner, ConditionalOrderParams params);
        event MerkleRootSet(address indexed owner, bytes32 root, Proof proof);
        event SwapGuardSet(address indexed owner, address swapGuard);

        error ProofNotAuthed();
        error SingleOrderNotAuthed();
        error SwapGuardRestricted();
        error InvalidHandler();
        error InvalidFallbackHandler();
        error InterfaceNotSupported();

        function create(ConditionalOrderParams params, bool dispatch) external;
        function createWithContext(
            ConditionalOrderParams params, address factory, bytes data, bool dispatch
        ) external;
        function remove(bytes32 singleOrderHash) external;
        function setRoot(bytes32 root, Proof proof) external;
        function setRootWithContext(
            bytes32 root, Proof proof, address factory, bytes data
        ) external;

        function getTradeableOrderWithSignature(
            address owner, ConditionalOrderParams params, bytes offchainInput, bytes32[] proof
        ) external view returns (OrderData order, bytes signature);
        function singleOrders(address owner, bytes32 hash) external view returns (bool);
        function cabinet(address owner, bytes32 context) external view returns (bytes32);
        function roots(address owner) external view returns (bytes32);
        function swapGuards(address owner) external view returns (address);
        function hash(ConditionalOrderParams params) external pure returns (bytes32);
        function domainSeparator() external view returns (bytes32);
    }

    /// `IConditionalOrder` and `IConditionalOrderGenerator`: what every handler speaks.
    interface Handler {
        error OrderNotValid(string reason);
        error PollTryNextBlock(string reason);
        error PollNever(string reason);
        error PollTryAtBlock(uint256 blockNumber, string reason);
        error PollTryAtEpoch(uint256 timestamp, string reason);

        function getTradeableOrder(
            address owner, address sender, bytes32 context, bytes staticInput, bytes offchainInput
        ) external view returns (OrderData order);
    }

    /// What `ExtensibleFallbackHandler` takes for a signature.
    interface SafeSigner {
        function safeSignature(
            bytes32 domainSeparator, bytes32 typeHash, bytes encodeData, bytes payload
        ) external view returns (bytes4 magic);
    }

    interface Settlement {
        event Trade(
            address indexed owner,
            address sellToken,
            address buyToken,
            uint256 sellAmount,
            uint256 buyAmount,
            uint256 feeAmount,
            bytes orderUid
        );
        event Settlement(address indexed solver);
        event OrderInvalidated(address indexed owner, bytes orderUid);
        event PreSignature(address indexed owner, bytes orderUid, bool signed);

        function setPreSignature(bytes orderUid, bool signed) external;
        function preSignature(bytes orderUid) external view returns (uint256);
        function filledAmount(bytes orderUid) external view returns (uint256);
        function invalidateOrder(bytes orderUid) external;
        function domainSeparator() external view returns (bytes32);
    }

    interface EthFlow {
        event OrderPlacement(
            address indexed sender, OrderData order, OnchainSignature signature, bytes data
        );
        event OrderInvalidation(bytes orderUid);
        event OrderRefund(bytes orderUid, address indexed refunder);

        error OrderIsAlreadyOwned(bytes32 orderHash);
        error OrderIsAlreadyExpired();
        error IncorrectEthAmount();

        function createOrder(EthFlowData order) external payable returns (bytes32 orderHash);
        function invalidateOrder(EthFlowData order) external;
        function orders(bytes32 orderHash) external view returns (address owner, uint32 validTo);
    }
}
