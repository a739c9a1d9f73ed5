// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

/// A Chainlink-like price that anyone may move.
contract Feed {
    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    struct Round {
        int256 answer;
        uint256 updatedAt;
    }

    string public description;
    uint8 public decimals;
    uint256 public constant version = 4;

    uint80 private latest;
    mapping(uint80 => Round) private rounds;

    constructor(string memory description_, uint8 decimals_, int256 answer) {
        description = description_;
        decimals = decimals_;
        set(answer, block.timestamp);
    }

    /// The next round. A time in the past makes a feed that looks stale.
    function set(int256 answer, uint256 updatedAt) public {
        latest += 1;
        rounds[latest] = Round(answer, updatedAt);
        emit AnswerUpdated(answer, latest, updatedAt);
    }

    function move(int256 answer) external {
        set(answer, block.timestamp);
    }

    function latestAnswer() external view returns (int256) {
        return rounds[latest].answer;
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return getRoundData(latest);
    }

    function getRoundData(uint80 roundId) public view returns (uint80, int256, uint256, uint256, uint80) {
        Round memory round = rounds[roundId];
        require(round.updatedAt != 0, "No data present");
        return (roundId, round.answer, round.updatedAt, round.updatedAt, roundId);
    }
}
