// SPDX-License-Identifier: GPL-3.0-or-later
pragma solidity 0.8.37;

/// An honest ERC-20 that can also make activity by itself.
///
/// Anyone may mint: this is a devnet. Every change of a balance is announced by exactly one
/// Transfer, so a ledger kept from the logs alone must agree with `balanceOf` at every block.
contract Token {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    string public name;
    string public symbol;
    uint8 public constant decimals = 18;

    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    constructor(string memory name_, string memory symbol_) {
        name = name_;
        symbol = symbol_;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        move(from, to, value);
        return true;
    }

    function mint(address to, uint256 value) external {
        create(to, value);
    }

    function burn(uint256 value) external {
        balanceOf[msg.sender] -= value;
        totalSupply -= value;
        emit Transfer(msg.sender, address(0), value);
    }

    /// Gives a holder exactly `value`, by a mint or a burn.
    function setBalance(address holder_, uint256 value) external {
        uint256 has = balanceOf[holder_];
        if (has <= value) {
            create(holder_, value - has);
        } else {
            balanceOf[holder_] = value;
            totalSupply -= has - value;
            emit Transfer(holder_, address(0), has - value);
        }
    }

    /// What an owner allows, whether or not it is asked.
    function setAllowance(address owner, address spender, uint256 value) external {
        allowance[owner][spender] = value;
        emit Approval(owner, spender, value);
    }

    /// Exactly `transfers` Transfers between holders chosen by `seed`, with one log each.
    ///
    /// A transfer for which the chosen holder lacks the funds becomes a mint to the chosen
    /// receiver instead, so nothing reverts and the first ones fill the accounts.
    function churn(uint256 seed, uint256 transfers, uint256 holders) external {
        for (uint256 i = 0; i < transfers; i++) {
            uint256 dice = uint256(keccak256(abi.encode(seed, i)));
            address from = holder(uint64(dice) % holders);
            address to = holder(uint64(dice >> 64) % holders);
            uint256 value = 1 + (uint64(dice >> 128) % 1e9);
            if (balanceOf[from] < value) {
                create(to, value);
            } else {
                move(from, to, value);
            }
        }
    }

    /// The holders `churn` moves between: `index` is below its `holders`.
    function holder(uint256 index) public pure returns (address) {
        return address(uint160(0x1000000000000000000000000000000000000000) + uint160(index));
    }

    function create(address to, uint256 value) private {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function move(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
