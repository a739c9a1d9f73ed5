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
        function setSwapGuard(address swapGuard) external;
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
    struct AboveThresholdData {
        address sellToken;
        address buyToken;
        address receiver;
        uint32 validityBucketSeconds;
        uint256 threshold;
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

#[cfg(test)]
mod tests {
    use alloy_sol_types::SolCall;

    use super::*;

    #[test]
    fn selectors_are_those_of_the_real_contracts() {
        let check = |selector: [u8; 4], known: u32| {
            assert_eq!(u32::from_be_bytes(selector), known, "{known:#x}");
        };
        check(ComposableCow::getTradeableOrderWithSignatureCall::SELECTOR, 0x26e0a196);
        check(ComposableCow::createCall::SELECTOR, 0x6bfae1ca);
        check(ComposableCow::createWithContextCall::SELECTOR, 0x0d0d9800);
        check(ComposableCow::removeCall::SELECTOR, 0x95bc2673);
        check(ComposableCow::setRootCall::SELECTOR, 0x1ab0dd9d);
        check(Settlement::domainSeparatorCall::SELECTOR, 0xf698da25);
        check(Settlement::setPreSignatureCall::SELECTOR, 0xec6cb13f);
        check(EthFlow::createOrderCall::SELECTOR, 0x322bba21);
        check(EthFlow::invalidateOrderCall::SELECTOR, 0x7bc41b96);
        check(Eip1271::isValidSignatureCall::SELECTOR, 0x1626ba7e);
    }
}
