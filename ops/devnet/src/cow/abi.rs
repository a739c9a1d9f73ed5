//! What the contracts are called with, theirs and our own.

use alloy_sol_types::sol;

sol! {
    struct ConditionalOrderParams { address handler; bytes32 salt; bytes staticInput; }
    struct Proof { uint256 location; bytes data; }
    struct Order {
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

    interface ComposableCow {
        function create(ConditionalOrderParams params, bool dispatch) external;
        function createWithContext(ConditionalOrderParams params, address factory, bytes data, bool dispatch) external;
        function remove(bytes32 singleOrderHash) external;
        function setRoot(bytes32 root, Proof proof) external;
        function getTradeableOrderWithSignature(address owner, ConditionalOrderParams params, bytes offchainInput, bytes32[] proof) external view returns (Order order, bytes signature);
    }

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
    struct GoodAfterTimeData {
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 minSellBalance;
        uint256 startTime;
        uint256 endTime;
        bool allowPartialFill;
        bytes priceCheckerPayload;
        bytes32 appData;
    }
    struct HintData {
        uint8 answer;
        uint256 argument;
        uint256 fromBlock;
        uint256 fromTime;
        address sellToken;
        address buyToken;
        address receiver;
        uint256 sellAmount;
        uint256 buyAmount;
        uint32 validTo;
        bytes32 appData;
    }

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
    interface EthFlow {
        function createOrder(EthFlowData order) external payable returns (bytes32 orderHash);
        function invalidateOrder(EthFlowData order) external;
    }

    interface Settlement {
        function domainSeparator() external view returns (bytes32);
        function vaultRelayer() external view returns (address);
        function setPreSignature(bytes orderUid, bool signed) external;
    }

    interface Erc20 {
        function approve(address spender, uint256 value) external returns (bool);
    }
    interface Weth {
        function deposit() external payable;
    }
    interface Eip1271 {
        function isValidSignature(bytes32 digest, bytes signature) external view returns (bytes4 magic);
    }

    struct BatchCall { address to; bytes data; }
    interface Batch {
        function run(BatchCall[] calls) external;
    }
    interface Fallback {
        function setDomainVerifier(bytes32 domainSeparator, address verifier) external;
    }
    interface Safe {
        function setup(address[] owners, uint256 threshold, address to, bytes data, address fallbackHandler, address paymentToken, uint256 payment, address paymentReceiver) external;
        function execTransaction(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, bytes signatures) external payable returns (bool success);
    }
    interface SafeProxyFactory {
        function createProxyWithNonce(address singleton, bytes initializer, uint256 saltNonce) external returns (address proxy);
    }

    interface PriceFeed {
        function set(int256 answer, uint256 updatedAt) external;
        function move(int256 answer) external;
    }
}
